// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fuzz bodies over their corpora, as an ordinary test: every seed, and a few hundred damaged copies of
//! each.
//!
//! The damage is the same on every run. It is no substitute for hours under libFuzzer, but it keeps the
//! bodies compiling, the seeds honest (a seed named `ok-...` must reach what it is about) and finds the
//! blunders of a change at once.

use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/bodies.rs"]
mod bodies;
#[path = "../../fuzz/src/driver.rs"]
mod driver;

/// Damaged copies per seed.
const COPIES: usize = 300;

/// The seeds of a target, by name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
    let mut seeds: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let entry = entry.expect("a readable directory");
            let name = entry.file_name().into_string().expect("a plain name");
            (name, std::fs::read(entry.path()).expect("a readable seed"))
        })
        .collect();
    seeds.sort();
    seeds
}

/// xorshift64.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state as usize
}

/// Flips, sets, repeats, cuts out or cuts off.
fn damage(bytes: &mut Vec<u8>, state: &mut u64) {
    for _ in 0..=random(state) % 4 {
        if bytes.is_empty() {
            return;
        }
        let at = random(state) % bytes.len();
        let to = (at + 1 + random(state) % 16).min(bytes.len());
        match random(state) % 6 {
            0 => bytes[at] ^= 1 << (random(state) % 8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random(state) % 5],
            2 => bytes[at..to].fill(0xff),
            3 => bytes.extend_from_within(at..),
            4 => drop(bytes.drain(at..to)),
            _ => bytes.truncate(at),
        }
    }
}

fn run(target: &str, least: usize, body: fn(&[u8]) -> bool) {
    let seeds = seeds(target);
    let well = seeds.iter().filter(|(name, _)| name.starts_with("ok-")).count();
    assert!(well >= least, "{target} has {well} lawful seeds");
    for (name, seed) in &seeds {
        assert_eq!(body(seed), name.starts_with("ok-"), "{target}/{name}");
        let mut state = 0x9e37_79b9_7f4a_7c15 ^ seed.len() as u64;
        for _ in 0..COPIES {
            let mut copy = seed.clone();
            damage(&mut copy, &mut state);
            body(&copy);
        }
    }
}

#[test]
fn server_corpus() {
    run("server", 5, bodies::server);
}

#[test]
fn client_corpus() {
    run("client", 5, bodies::client);
}

#[test]
fn requests_corpus() {
    run("requests", 3, bodies::requests);
}

#[test]
fn replies_corpus() {
    run("replies", 5, bodies::replies);
}

#[test]
fn pair_corpus() {
    run("pair", 3, bodies::pair);
}

#[test]
fn uri_corpus() {
    run("uri", 8, bodies::uri);
}

#[test]
fn gate_corpus() {
    run("gate", 6, bodies::gate);
}
