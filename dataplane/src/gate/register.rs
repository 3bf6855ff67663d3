// SPDX-License-Identifier: MIT OR Apache-2.0
//! The register of one volume: a file that all gate processes of the volume on this host share.
//!
//! ```text
//!     0  record, page A  \  written in turn and synced; the higher sequence counts (`record`)
//!  8192  record, page B  /
//! 16384  live table: shared memory, meaningful only while a process lives (`live`)
//!  2^40  locks, beyond the end of the file: one byte to change the register, one for each process
//! ```
//!
//! A new file is made under another name, synced and linked, so a register that exists is whole; one that
//! is not was damaged later and is never guessed at. Everything here may block, so it runs at start or on a
//! helper thread; only the words of the live table are touched by reactors.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use policies::fence::{self, Ask, Ended, Grant, Refusal, Standing, Writers};
use program::{CacheLife, FenceProgram, RegisterPlace};
use ring::shared::{is_locked, lock, try_lock, unlock};

use crate::gate::live::{LIVE_BYTES, Live, PROCESSES_MAX, SlotWord};
use crate::gate::record::{PAGE_BYTES, Record, Unusable};

const LIVE_AT: u64 = 2 * PAGE_BYTES as u64;
const FILE_BYTES: u64 = LIVE_AT + LIVE_BYTES as u64;
const LOCK_CHANGE: u64 = 1 << 40;
const LOCK_SLOTS: u64 = LOCK_CHANGE + 1;

/// What a claim asks of the register.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) member: String,
    pub(crate) epoch: u64,
    pub(crate) session: u128,
    pub(crate) kill: Option<u128>,
    pub(crate) fence: Option<(String, u64)>,
    pub(crate) standing: Standing,
}

/// A claim the register grants, once what it ends is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Index of the member.
    pub(crate) member: usize,
    /// Other processes must be through with everything dispatched before this generation.
    pub(crate) generation: u64,
    /// Kills counted when it was granted.
    pub(crate) kills: u64,
}

/// See the module header.
pub(crate) struct Register {
    file: File,
    pub(crate) live: Live,
    pub(crate) slot: usize,
    writers: Writers,
    pub(crate) volume: u128,
    /// The life of its live table: the same for all processes that serve the volume at once.
    pub(crate) nonce: u128,
    pub(crate) cache_generation: u64,
    /// A process that had the register to itself has ended without saying so: what it had sent to its server may
    /// still be carried out.
    pub(crate) unclean: bool,
    /// As this process last read or wrote it; held while it is changed.
    known: Mutex<Record>,
}

impl Register {
    /// Opens or makes the register of a fence, and takes a slot in it for this process.
    ///
    /// # Errors
    ///
    /// With advice, when it cannot be had.
    pub(crate) fn open(fence: &FenceProgram) -> io::Result<Self> {
        let (file, exclusive) = match &fence.register {
            RegisterPlace::Memory => (anonymous()?, true),
            RegisterPlace::Shared(path) => (open_file(Path::new(path))?, false),
            RegisterPlace::Exclusive(path) => (open_file(Path::new(path))?, true),
        };
        lock_change(&file)?;
        let mut record = read(&file)?;
        let live = Live::map(&file, LIVE_AT)?;
        let alone = !is_locked(&file, LOCK_SLOTS, PROCESSES_MAX as u64)?;
        let slot = take_slot(&file, exclusive)?;
        let unclean = exclusive && live.slot(slot, SlotWord::InUse).load(Ordering::SeqCst) != 0;
        if alone {
            live.reset(&record.register, ring::random::id()?);
        } else if !live.is_valid() {
            return Err(invalid(
                "its live table is damaged while another process uses it: stop all gates of the volume",
            ));
        }
        let generation = live.generation();
        live.settle(slot, 0, generation);
        live.slot(slot, SlotWord::Pid).store(u64::from(std::process::id()), Ordering::SeqCst);
        live.slot(slot, SlotWord::InUse).store(1, Ordering::SeqCst);
        count_cache(&mut record, fence.cache)?;
        if read(&file)? != record {
            write(&file, &mut record)?;
        }
        unlock(&file, LOCK_CHANGE, 1)?;
        let writers = match fence.writers {
            program::Writers::One => Writers::One,
            program::Writers::Many => Writers::Many,
        };
        let (volume, cache_generation, nonce) = (record.volume, record.cache_generation, live.life());
        let known = Mutex::new(record);
        Ok(Self { file, live, slot, writers, volume, nonce, cache_generation, unclean, known })
    }

    fn known(&self) -> MutexGuard<'_, Record> {
        // Nothing panics while it holds the lock; a panic elsewhere ends the process.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn writers(&self) -> Writers {
        self.writers
    }

    /// The highest epoch, and whose it is where this process knows.
    pub(crate) fn epoch_and_holder(&self) -> (u64, Option<String>) {
        let epoch = self.live.epoch();
        let Ok(known) = self.known.try_lock() else { return (epoch, None) };
        let register = &known.register;
        let holder = register.holder.filter(|_| register.epoch == epoch && self.writers == Writers::One);
        (epoch, holder.map(|index| register.members[index].name.clone()))
    }

    /// Judges a wish, and makes durable and known what it raises and kills. May block.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, locked or written: nothing was granted.
    pub(crate) fn claim(&self, wish: &Wish) -> io::Result<Result<Granted, Refusal>> {
        let mut known = self.known();
        lock_change(&self.file)?;
        let outcome = self.claim_locked(&mut known, wish);
        unlock(&self.file, LOCK_CHANGE, 1)?;
        outcome
    }

    fn claim_locked(&self, known: &mut Record, wish: &Wish) -> io::Result<Result<Granted, Refusal>> {
        *known = read(&self.file)?;
        // A process that died between its write and this is made up for.
        self.live.publish(&known.register);
        let ask = Ask {
            member: &wish.member,
            epoch: wish.epoch,
            fence: wish.fence.as_ref().map(|(member, floor)| (member.as_str(), *floor)),
        };
        let Grant { member, raised } = match fence::admit(&known.register, self.writers, &ask, wish.standing)
        {
            Ok(grant) => grant,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if self.live.remembers_kill(wish.session, member) {
            return Ok(Err(Refusal::SessionKnown));
        }
        if let Some(raised) = raised {
            let mut record = Record { register: raised, ..known.clone() };
            write(&self.file, &mut record)?;
            *known = record;
            self.live.publish(&known.register);
        }
        let mut generation = self.live.raised();
        if let Some(session) = wish.kill {
            if !self.live.remembers_kill(session, member) {
                self.live.kill(session, member);
            }
            generation = self.live.generation();
        }
        Ok(Ok(Granted { member, generation, kills: self.live.kills() }))
    }

    /// Why a session of this volume is over, if it is. `kills`: those counted when it was granted or last judged.
    pub(crate) fn ended(&self, member: usize, epoch: u64, session: u128, kills: u64) -> Option<Ended> {
        let live = &self.live;
        if fence::is_overtaken(self.writers, epoch, live.epoch(), live.floor(member)) {
            Some(Ended::Epoch)
        } else if live.is_killed(session, member, kills) {
            Some(Ended::Killed)
        } else {
            None
        }
    }

    /// F4 for all other processes; how many are not through yet.
    ///
    /// # Errors
    ///
    /// When it cannot be found out who lives; nobody is then known to be through.
    pub(crate) fn others_in_the_way(&self, generation: u64) -> io::Result<usize> {
        let mut count = 0;
        for slot in (0..PROCESSES_MAX).filter(|slot| *slot != self.slot) {
            if !self.live.is_through(slot, generation) && is_locked(&self.file, LOCK_SLOTS + slot as u64, 1)?
            {
                count += 1;
            }
        }
        Ok(count)
    }

    /// Nothing is left behind that a later process would have to wait for.
    pub(crate) fn leave_clean(&self) {
        self.live.slot(self.slot, SlotWord::InUse).store(0, Ordering::SeqCst);
    }

    /// `holdfast gate reset-epoch`: forgets members and floors and sets the epoch. Returns the epoch before.
    ///
    /// # Errors
    ///
    /// When a gate process lives and it is not forced, or the file cannot be had.
    pub(crate) fn reset(path: &Path, epoch: u64, force: bool) -> io::Result<u64> {
        if !path.exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "there is no register; nothing needs to be reset",
            ));
        }
        let file = open_file(path)?;
        lock_change(&file)?;
        if !force && is_locked(&file, LOCK_SLOTS, PROCESSES_MAX as u64)? {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "a gate of this volume is running: stop it first, or use --force",
            ));
        }
        let mut record = match read(&file) {
            Ok(record) => record,
            Err(_) if force => fresh()?,
            Err(error) => return Err(error),
        };
        let before = record.register.epoch;
        record.register = fence::Register { epoch, holder: None, members: Vec::new() };
        write(&file, &mut record)?;
        Ok(before)
    }
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// A record for a volume that has none.
fn fresh() -> io::Result<Record> {
    Ok(Record {
        sequence: 0,
        volume: ring::random::id()?,
        cache_generation: 0,
        boot: 0,
        register: fence::Register::default(),
    })
}

/// The register of a volume in memory: the same code on a file without a name.
fn anonymous() -> io::Result<File> {
    let file = ring::file::anonymous("holdfast-register")?;
    file.set_len(FILE_BYTES)?;
    write(&file, &mut fresh()?)?;
    Ok(file)
}

fn open_file(path: &Path) -> io::Result<File> {
    let open = || File::options().read(true).write(true).open(path);
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path)?;
            open()?
        }
        other => other?,
    };
    let found = file.metadata()?;
    if !found.is_file() || found.len() < FILE_BYTES {
        return Err(invalid("it is no register"));
    }
    Ok(file)
}

/// Makes a whole register under another name and links it: of two processes that do so one wins.
fn make(path: &Path) -> io::Result<()> {
    let temporary = PathBuf::from(format!("{}.new-{}", path.display(), std::process::id()));
    // What a process of the same number left in the middle of this.
    let _ = fs::remove_file(&temporary);
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&temporary)?;
    let made =
        file.set_len(FILE_BYTES).and_then(|()| write(&file, &mut fresh()?)).and_then(|()| file.sync_all());
    let linked = made.and_then(|()| match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    fs::remove_file(&temporary)?;
    linked?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// The page that counts. A register that was made has at least one.
fn read(file: &File) -> io::Result<Record> {
    let page = |at: u64| -> io::Result<Result<Record, Unusable>> {
        let mut page = [0; PAGE_BYTES];
        file.read_exact_at(&mut page, at)?;
        Ok(Record::decode(&page))
    };
    match (page(0)?, page(PAGE_BYTES as u64)?) {
        (Err(Unusable::Newer(format)), _) | (_, Err(Unusable::Newer(format))) => {
            Err(invalid(format!("it has format {format}, which a later version wrote")))
        }
        (Ok(a), Ok(b)) => Ok(if a.sequence > b.sequence { a } else { b }),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
        (Err(_), Err(_)) => Err(invalid(
            "it is damaged: restore it, or let `holdfast gate reset-epoch --force` make a new one once nothing writes the volume",
        )),
    }
}

/// Writes the record over the page that does not count, and syncs it.
fn write(file: &File, record: &mut Record) -> io::Result<()> {
    record.sequence += 1;
    let at = record.sequence % 2 * PAGE_BYTES as u64;
    file.write_all_at(&record.encode(), at)?;
    file.sync_data()
}

/// Counts a new cache generation when unflushed data may be gone.
fn count_cache(record: &mut Record, life: CacheLife) -> io::Result<()> {
    let boot = boot_id()?;
    if life == CacheLife::Process || record.boot != boot || record.cache_generation == 0 {
        record.cache_generation += 1;
        record.boot = boot;
    }
    Ok(())
}

/// Drawn by the kernel at its start.
fn boot_id() -> io::Result<u128> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map_err(|_| invalid("the kernel's boot id is no UUID"))
}

/// The right to change the register. Another process has it for a few syncs, or until it is continued if it was
/// stopped just then; its death ends it.
fn lock_change(file: &File) -> io::Result<()> {
    if !try_lock(file, LOCK_CHANGE, 1)? {
        crate::log::info!("gate", "waiting for another gate process that is changing the register");
        lock(file, LOCK_CHANGE, 1)?;
    }
    Ok(())
}

/// Takes a slot, or all of them.
fn take_slot(file: &File, exclusive: bool) -> io::Result<usize> {
    let busy = |text: &str| io::Error::new(io::ErrorKind::ResourceBusy, text.to_owned());
    if exclusive {
        let all = try_lock(file, LOCK_SLOTS, PROCESSES_MAX as u64)?;
        return all.then_some(0).ok_or_else(|| {
            busy("another gate process serves this volume; in front of an NBD server there can be only one")
        });
    }
    for slot in 0..PROCESSES_MAX {
        if try_lock(file, LOCK_SLOTS + slot as u64, 1)? {
            return Ok(slot);
        }
    }
    Err(busy("too many gate processes serve this volume, or one has it to itself"))
}

#[cfg(test)]
mod tests;
