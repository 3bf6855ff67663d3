// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference pages and the sample configuration against the tables they describe.
//!
//! With `UPDATE_GOLDEN=1` the tables in the pages are written anew.

use std::fs;
use std::path::{Path, PathBuf};

use controlplane::api::{METRICS, ROUTES};
use controlplane::config::{Environment, Section, load, reference_rows};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Compares what stands between two marks of a page with `rows`.
fn check_block(page: &str, mark: &str, rows: &[String]) {
    let file = repository(page);
    let text = fs::read_to_string(&file).expect("the page");
    let (begin, end) = (format!("<!-- {mark} begin -->\n"), format!("<!-- {mark} end -->"));
    let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no {begin}"));
    let (found, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has no {end}"));
    let wanted = rows.join("\n") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        // Renamed into place: other tests read the page meanwhile.
        let new = file.with_extension("md.new");
        fs::write(&new, format!("{head}{begin}{wanted}{end}{tail}")).expect("written");
        fs::rename(&new, &file).expect("renamed");
        return;
    }
    assert_eq!(found, wanted, "{page}: the table `{mark}` is out of step with the code");
}

fn table(header: &[&str], rows: Vec<String>) -> Vec<String> {
    let line = |cells: Vec<&str>| format!("| {} |", cells.join(" | "));
    let rule = header.iter().map(|_| "---").collect();
    [line(header.to_vec()), line(rule)].into_iter().chain(rows).collect()
}

#[test]
fn every_key_is_in_the_reference_page() {
    let header = ["key", "type", "default", "allowed", "reload", "meaning"];
    for section in Section::ALL {
        check_block("docs/configuration.md", section.header(), &table(&header, reference_rows(section)));
    }
}

#[test]
fn every_metric_and_route_is_in_the_api_page() {
    let metric = |m: &controlplane::api::Metric| {
        let labels = if m.labels().is_empty() { String::new() } else { format!("`{}`", m.labels()) };
        let kind = if m.counter { "counter" } else { "gauge" };
        format!("| `{}` | {kind} | {labels} | {} |", m.full_name(), m.help)
    };
    let rows = table(&["metric", "type", "labels", "meaning"], METRICS.iter().map(metric).collect());
    check_block("docs/api.md", "metrics", &rows);
    let route = |(method, path, about): &(&str, &str, &str)| format!("| {method} | `{path}` | {about} |");
    let rows = table(&["method", "path", "answer"], ROUTES.iter().map(route).collect());
    check_block("docs/api.md", "routes", &rows);
}

#[test]
fn the_sample_configuration_is_accepted() {
    let environment = Environment { host_name: "host1".to_owned(), cores: 2, state_dir: None };
    let config =
        load(&repository("packaging/holdfast.toml"), &environment).unwrap_or_else(|error| panic!("{error}"));
    assert!(!config.program().devices.is_empty());
    assert!(config.warnings().is_empty(), "{}", config.warnings());
}

#[test]
fn the_examples_of_the_reference_page_are_accepted() {
    let text = fs::read_to_string(repository("docs/configuration.md")).expect("the page");
    let environment = Environment { host_name: "host1".to_owned(), cores: 2, state_dir: None };
    let examples: Vec<&str> =
        text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 2, "the page has {} examples", examples.len());
    for example in examples {
        let source = controlplane::config::Source::new("docs/configuration.md", example);
        if let Err(mistakes) = controlplane::config::Config::parse(source, &environment) {
            panic!("{mistakes}");
        }
    }
}
