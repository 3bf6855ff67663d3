// SPDX-License-Identifier: MIT OR Apache-2.0
//! The longest files and functions: places to look. Nothing is enforced.

use crate::code::blank_literals;
use crate::tree::files_ending;

const SHOWN: usize = 12;

#[test]
fn the_longest_files_and_functions_are_shown() {
    let mut files: Vec<(usize, String)> = Vec::new();
    let mut functions: Vec<(usize, String)> = Vec::new();
    for file in files_ending(&[".rs"]) {
        let code = blank_literals(&file.text);
        files.push((file.text.lines().count(), file.path.clone()));
        for (name, line, length) in function_lengths(&code) {
            functions.push((length, format!("{}:{line} {name}", file.path)));
        }
    }
    assert!(!functions.is_empty(), "no function was found in any file");
    show("longest files (lines)", files);
    show("longest functions (lines)", functions);
}

fn show(title: &str, mut list: Vec<(usize, String)>) {
    list.sort_by(|a, b| b.cmp(a));
    println!("{title}");
    for (length, place) in list.iter().take(SHOWN) {
        println!("  {length:5}  {place}");
    }
}

/// Name, first line and length of each function with a body.
fn function_lengths(code: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let starts = lines.iter().enumerate().filter_map(|(index, line)| Some((index, function_name(line)?)));
    starts.filter_map(|(index, name)| Some((name, index + 1, body_lines(&lines[index..])?))).collect()
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    words
        .find(|word| {
            !matches!(*word, "pub" | "pub(crate)" | "pub(super)" | "const" | "async" | "unsafe" | "extern")
        })
        .filter(|word| *word == "fn")?;
    let name = words.next()?.split(['(', '<']).next()?;
    Some(name.to_owned())
}

/// Lines until the braces of the body are closed; `None` for a declaration.
fn body_lines(lines: &[&str]) -> Option<usize> {
    let mut depth = 0;
    for (index, line) in lines.iter().enumerate() {
        for c in line.chars() {
            match c {
                ';' if depth == 0 => return None,
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(index + 1);
                    }
                }
                _ => {}
            }
        }
    }
    None
}

#[test]
fn functions_are_measured() {
    let code = "fn a() {\n    {}\n}\ntrait T {\n    fn b();\n    pub const fn c<X>(\n        x: X,\n    ) {\n    }\n}\n";
    assert_eq!(function_lengths(code), [("a".to_owned(), 1, 3), ("c".to_owned(), 6, 4)]);
}
