// SPDX-License-Identifier: MIT OR Apache-2.0
//! Child processes that cannot outlive their test.
//!
//! Each runs in a process group of its own, with its output in a log of the test's
//! directory, and is killed by its id on drop. `setpriv --pdeathsig` covers what drop
//! cannot: a test that the runner killed for running too long.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::{Namespace, TestDir, wait};

/// What to run and where.
#[derive(Clone, Debug)]
pub struct Command {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    namespace: Option<String>,
    directory: Option<PathBuf>,
    open_files: Option<u64>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Command {
    /// A program by name or path.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            namespace: None,
            directory: None,
            open_files: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it in a network namespace.
    #[must_use]
    pub fn within(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.name().to_owned());
        self
    }

    /// Runs it in a directory.
    #[must_use]
    pub fn in_dir(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Sets its limit of open files, soft and hard.
    #[must_use]
    pub fn open_files(mut self, limit: u64) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Starts it; output goes to `NAME.log` of the test's directory, appended.
    pub fn spawn(&self, dir: &TestDir, name: &str) -> Process {
        let log_path = dir.join(&format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&log_path).expect("a log can be made");
        let errors = log.try_clone().expect("a descriptor can be cloned");
        let mut command = self.build(true);
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let child = command.spawn().unwrap_or_else(|e| self.cannot_start(&e));
        Process { name: name.to_owned(), child, log_path, exit: None }
    }

    /// Runs it to its end and returns its status and output.
    pub fn output(&self) -> std::process::Output {
        let mut command = self.build(false);
        command.stdin(Stdio::null());
        command.output().unwrap_or_else(|e| self.cannot_start(&e))
    }

    fn build(&self, dies_with_test: bool) -> std::process::Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(namespace) = &self.namespace {
            words.extend(["ip", "netns", "exec", namespace].map(str::to_owned));
        }
        if let Some(limit) = self.open_files {
            words.extend(["prlimit".to_owned(), format!("--nofile={limit}:{limit}"), "--".to_owned()]);
        }
        if dies_with_test {
            words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned));
        }
        words.push(self.program.clone());
        words.extend(self.arguments.iter().cloned());
        let mut command = std::process::Command::new(&words[0]);
        command.args(&words[1..]).envs(self.environment.iter().map(|(k, v)| (k, v)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    fn cannot_start(&self, error: &io::Error) -> ! {
        panic!("cannot start {}: {error} (`tests/run` installs what the suites need)", self.program)
    }
}

/// A running child; killed on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log_path: PathBuf,
    exit: Option<Exit>,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log_path).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of its log that contains `text`; fails at once if it ends first.
    pub fn await_line(&mut self, text: &str) -> String {
        let what = format!("{} to write \"{text}\"", self.name);
        wait::until(&what, || {
            // Status first: what a process wrote before it ended is then seen below.
            let ended = self.try_wait();
            let line = self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
            assert!(line.is_some() || ended.is_none(), "{} ended ({ended:?}): {}", self.name, self.log());
            line
        })
    }

    /// How it ended, if it did.
    pub fn try_wait(&mut self) -> Option<Exit> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("a child can be waited for").map(Exit::from);
        }
        self.exit
    }

    /// Waits for its end; panics after `bound`.
    pub fn wait_within(&mut self, bound: Duration) -> Exit {
        let what = format!("{} to end", self.name);
        wait::until_within(bound, &what, || self.try_wait())
    }

    /// Fails if it has ended.
    pub fn assert_running(&mut self) {
        let ended = self.try_wait();
        assert!(ended.is_none(), "{} ended unexpectedly ({ended:?}): {}", self.name, self.log());
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: Signal) {
        assert!(self.exit.is_none(), "{} has ended already", self.name);
        kill(self.pid(), signal).unwrap_or_else(|e| panic!("cannot signal {}: {e}", self.name));
    }

    /// Sends a signal to the process and all its children.
    pub fn signal_group(&self, signal: Signal) {
        assert!(self.exit.is_none(), "{} has ended already", self.name);
        killpg(self.pid(), signal).unwrap_or_else(|e| panic!("cannot signal {}: {e}", self.name));
    }

    /// Kills it and its children and waits for it.
    pub fn kill(&mut self) {
        if self.try_wait().is_none() {
            // The group is gone only after the leader is reaped, which nobody but us does.
            let _ = killpg(self.pid(), Signal::SIGKILL);
            self.exit = self.child.wait().ok().map(Exit::from);
        }
    }

    /// Stops it and waits until the kernel says all its threads are stopped.
    pub fn stop(&self) {
        self.signal_group(Signal::SIGSTOP);
        let what = format!("{} to be stopped", self.name);
        wait::until_true(&what, || self.thread_states().iter().all(|state| *state == 'T'));
    }

    /// Each thread stops when it next runs: the first one says nothing of those that read sockets.
    fn thread_states(&self) -> Vec<char> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("it runs");
        let state = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("stat")).ok()?;
            text.rsplit_once(") ")?.1.chars().next()
        };
        tasks.flatten().filter_map(state).collect()
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal_group(Signal::SIGCONT);
    }

    /// Process ids of its direct children.
    pub fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = text.lines().find(|l| l.starts_with("VmRSS:")).expect("status names VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|w| w.parse().ok()).expect("a number");
        kib * 1024
    }

    /// Processor time used so far, in user and kernel mode.
    pub fn cpu_time(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("it runs");
        let after_name = text.rsplit_once(") ").expect("stat has a name in brackets").1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // Fields 14 and 15 of proc(5), in ticks of 1/100 s; the first here is field 3.
        let ticks: u64 = fields[11..13].iter().map(|f| f.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// How often each of its threads, by number, has waited and been woken.
    pub fn wakeups(&self) -> BTreeMap<u32, u64> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("it runs");
        let waits = |task: std::fs::DirEntry| {
            // A thread may end meanwhile.
            let text = std::fs::read_to_string(task.path().join("status")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            let number = task.file_name().to_str()?.parse().ok()?;
            Some((number, line.trim().parse().ok()?))
        };
        tasks.flatten().filter_map(waits).collect()
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }

    /// Time since `start` until its end, for tests of bounds.
    pub fn ended_after(&mut self, start: Instant, bound: Duration) -> (Exit, Duration) {
        let exit = self.wait_within(bound);
        (exit, start.elapsed())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids fit"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => unreachable!("a process that ended has a code or a signal"),
        }
    }
}
