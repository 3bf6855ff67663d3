// SPDX-License-Identifier: MIT OR Apache-2.0
//! The storage server's side of the handshake.

use std::io;

use tokio_uring::net::TcpStream;

use super::reader::{Reader, send};
use super::server::Shared;
use crate::wire::{HANDSHAKE_FLAGS, NBD_MAGIC, OPTION_MAGIC, OptionReply, option, reply};

/// Runs the handshake; `Ok(false)` if the client ended it.
pub(super) async fn run(stream: &TcpStream, reader: &mut Reader, shared: &Shared) -> io::Result<bool> {
    if shared.faults().silent_handshake {
        shared.record.fault_fired();
        shared.until(|faults| !faults.silent_handshake).await;
    }
    let mut greeting = NBD_MAGIC.to_be_bytes().to_vec();
    greeting.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    greeting.extend_from_slice(&HANDSHAKE_FLAGS.to_be_bytes());
    send(stream, greeting).await?;
    let client_flags = reader.take(4).await?;
    let no_zeroes = client_flags[3] & 2 != 0;
    loop {
        let head = reader.take(16).await?;
        let number = crate::wire::u32_at(&head, 8);
        let payload = reader.take(crate::wire::u32_at(&head, 12) as usize).await?;
        match number {
            option::EXPORT_NAME => {
                send(stream, export_name_answer(shared, no_zeroes)).await?;
                return Ok(true);
            }
            option::GO | option::INFO => {
                if let Some(text) = refusal(shared, &payload) {
                    send(stream, text.with_option(number)).await?;
                } else {
                    send(stream, export_answer(shared, number)).await?;
                    if number == option::GO {
                        return Ok(true);
                    }
                }
            }
            option::ABORT => {
                send(stream, plain(number, reply::ACK)).await?;
                return Ok(false);
            }
            _ => send(stream, plain(number, reply::ERR_UNSUP)).await?,
        }
    }
}

fn plain(option: u32, kind: u32) -> Vec<u8> {
    OptionReply { option, kind, data: Vec::new() }.encode()
}

struct Refusal(u32, String);

impl Refusal {
    fn with_option(self, option: u32) -> Vec<u8> {
        OptionReply { option, kind: self.0, data: self.1.into_bytes() }.encode()
    }
}

fn refusal(shared: &Shared, payload: &[u8]) -> Option<Refusal> {
    if let Some(text) = shared.faults().refuse {
        shared.record.fault_fired();
        return Some(Refusal(reply::ERR_POLICY, text));
    }
    let only = shared.options.only_export.as_ref()?;
    let len = crate::wire::u32_at(payload, 0) as usize;
    let unknown = &payload[4..4 + len] != only.as_bytes();
    unknown.then(|| Refusal(reply::ERR_UNKNOWN, "no such export".to_owned()))
}

fn export_name_answer(shared: &Shared, no_zeroes: bool) -> Vec<u8> {
    let mut bytes = shared.size_bytes.to_be_bytes().to_vec();
    bytes.extend_from_slice(&shared.options.flags.to_be_bytes());
    if !no_zeroes {
        bytes.extend_from_slice(&[0; 124]);
    }
    bytes
}

fn export_answer(shared: &Shared, option: u32) -> Vec<u8> {
    let mut export = vec![0, 0];
    export.extend_from_slice(&shared.size_bytes.to_be_bytes());
    export.extend_from_slice(&shared.options.flags.to_be_bytes());
    let mut bytes = OptionReply { option, kind: reply::INFO, data: export }.encode();
    if let Some([minimum, preferred, maximum]) = shared.options.block_sizes {
        let mut sizes = vec![0, 3];
        for size in [minimum, preferred, maximum] {
            sizes.extend_from_slice(&size.to_be_bytes());
        }
        bytes.extend(OptionReply { option, kind: reply::INFO, data: sizes }.encode());
    }
    bytes.extend(plain(option, reply::ACK));
    bytes
}
