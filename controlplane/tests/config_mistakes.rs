// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the configuration parser says, compared with golden files.
//!
//! Each `golden/config/NAME.toml` has a `NAME.txt` with the exact text for it:
//! its mistakes or, where it has none, its warnings. After a wanted change run
//! with `UPDATE_GOLDEN=1` and read the difference.

use std::fs;
use std::path::{Path, PathBuf};

use controlplane::config::{Config, Environment, Source};

fn environment() -> Environment {
    Environment { host_name: "host1".to_owned(), cores: 4, state_dir: None }
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config")
}

fn told(name: &str, text: &str) -> String {
    match Config::parse(Source::new(format!("{name}.toml"), text), &environment()) {
        Ok(config) => format!("accepted\n\n{}", config.warnings().render(false)),
        Err(mistakes) => format!("{} mistakes\n\n{}", mistakes.len(), mistakes.render(false)),
    }
}

#[test]
fn every_case_is_told_as_in_its_golden_file() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut cases = 0;
    for entry in fs::read_dir(golden_dir()).expect("the golden directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        cases += 1;
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let found = told(name, &fs::read_to_string(&path).expect("a readable case"));
        let golden = path.with_extension("txt");
        if update {
            fs::write(&golden, &found).expect("the golden file can be written");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(found, expected, "{name}: the text changed; see the head of this file");
    }
    assert!(cases > 20, "only {cases} cases found");
}

#[test]
fn colours_only_where_asked_for() {
    let Err(mistakes) = Config::parse(Source::new("f", "[nod]\n"), &environment()) else {
        panic!("accepted")
    };
    assert!(mistakes.render(true).contains("\x1b[1;31merror\x1b[0m"));
    assert!(!mistakes.render(false).contains('\x1b'));
    let lines: Vec<_> = mistakes.lines().collect();
    assert_eq!(lines, ["f:1:2: unknown key `nod`"]);
}

#[test]
fn hostile_texts_are_refused_without_a_panic() {
    let sample = fs::read_to_string(golden_dir().join("warnings.toml")).expect("a sample");
    let parse = |text: &str| {
        Config::parse(Source::new("f", text), &environment()).map(|_| ()).map_err(|m| m.render(false))
    };
    // Every prefix and every line removed: most are mistakes, none may panic.
    for (at, _) in sample.char_indices() {
        let _ = parse(&sample[..at]);
    }
    let lines: Vec<&str> = sample.lines().collect();
    for removed in 0..lines.len() {
        let rest: Vec<&str> =
            lines.iter().enumerate().filter(|(n, _)| *n != removed).map(|(_, line)| *line).collect();
        let _ = parse(&rest.join("\n"));
    }
    for text in
        ["\0", "\u{feff}", "[[[[[[", "a=[[[[[[[[[[", "x = \"\\uD800\"", "[[device]]\n[[device.path]]\npath=1"]
    {
        assert!(parse(text).is_err() || text == "\u{feff}", "{text:?}");
    }
    let deep = format!("x = {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(parse(&deep).is_err());
}

#[test]
fn too_many_devices_are_refused() {
    let one = "[[device]]\nname = \"v\"\n";
    let Err(mistakes) = Config::parse(Source::new("f", one.repeat(4097)), &environment()) else {
        panic!("accepted")
    };
    assert_eq!(mistakes.len(), 1);
    assert!(mistakes.render(false).contains("there are 4097 [[device]] tables, 4096 are allowed"));
}
