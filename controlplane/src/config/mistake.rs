// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong in a configuration, and how it is shown.
//!
//! A mistake is a value with a place in the source; parsing collects all of
//! them and stops at none, so one run of `check` shows everything there is to
//! repair. They are shown as compilers do: message, file, line and column, the
//! source line, a mark under the words concerned, and what is allowed there.

use std::fmt;
use std::ops::Range;

use super::Source;
use crate::limits::{EXCERPT_CHARS_MAX, MISTAKES_SHOWN_MAX};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but something in it deserves a look.
    Warning,
}

/// One finding in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Byte range in the source.
    pub span: Range<usize>,
    /// What is wrong, one line.
    pub message: String,
    /// Short text beside the mark, may be empty.
    pub label: String,
    /// What is allowed or what to do.
    pub help: Option<String>,
}

impl Mistake {
    /// A finding at `span`; see [`Mistake::label`] and [`Mistake::help`].
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), label: String::new(), help: None }
    }

    /// Adds the text beside the mark.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds what is allowed.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Findings of one severity in one source, in the order of the source.
#[derive(Clone, Debug)]
pub struct Findings {
    severity: Severity,
    source: Source,
    list: Vec<Mistake>,
}

impl Findings {
    /// Sorts `list` by place.
    pub(crate) fn new(severity: Severity, source: Source, mut list: Vec<Mistake>) -> Self {
        list.sort_by_key(|mistake| (mistake.span.start, mistake.span.end));
        list.dedup();
        Self { severity, source, list }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The findings in source order.
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }

    /// One line for each, without excerpt: `file:line:column: message`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list.iter().map(|mistake| {
            let at = self.source.position(mistake.span.start);
            format!("{}:{}:{}: {}", self.source.name(), at.line, at.column, mistake.message)
        })
    }

    /// The full text, with ANSI colours if `colour`.
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint { colour };
        let mut out = String::new();
        for mistake in self.list.iter().take(MISTAKES_SHOWN_MAX) {
            out.push_str(&self.render_one(mistake, paint));
            out.push('\n');
        }
        if let Some(more) = self.list.len().checked_sub(MISTAKES_SHOWN_MAX).filter(|more| *more > 0) {
            out.push_str("and ");
            out.push_str(&more.to_string());
            out.push_str(" more\n");
        }
        out
    }

    fn render_one(&self, mistake: &Mistake, paint: Paint) -> String {
        let word = match self.severity {
            Severity::Error => paint.red("error"),
            Severity::Warning => paint.yellow("warning"),
        };
        let at = self.source.position(mistake.span.start);
        let number = at.line.to_string();
        let margin = " ".repeat(number.len());
        let excerpt = Excerpt::new(&self.source, mistake);
        let bar = paint.blue("|");
        let mark = paint.red(&"^".repeat(excerpt.mark_chars));
        let name = self.source.name();
        let indent = " ".repeat(excerpt.mark_at);
        let label = if mistake.label.is_empty() { String::new() } else { format!(" {}", mistake.label) };
        let mut lines = vec![
            format!("{word}: {}", paint.bold(&mistake.message)),
            format!("{margin}{} {name}:{}:{}", paint.blue("-->"), at.line, at.column),
            format!("{margin} {bar}"),
            format!("{} {bar} {}", paint.blue(&number), excerpt.text),
            format!("{margin} {bar} {indent}{mark}{label}"),
        ];
        lines.extend(mistake.help.iter().map(|help| format!("{margin} {} {help}", paint.blue("="))));
        lines.push(String::new());
        lines.join("\n")
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// The part of the source line that is shown, and where the mark goes.
struct Excerpt {
    text: String,
    mark_at: usize,
    mark_chars: usize,
}

impl Excerpt {
    fn new(source: &Source, mistake: &Mistake) -> Self {
        let (start, end) = (source.position(mistake.span.start), source.position(mistake.span.end));
        let line: Vec<char> = source.line(start.line).chars().map(printable).collect();
        // A mark never runs past its line and is never empty.
        let last = if end.line == start.line { end.column } else { line.len() + 1 };
        let mark_chars = last.saturating_sub(start.column).max(1);
        let skip = (start.column - 1).saturating_sub(EXCERPT_CHARS_MAX / 2);
        let skip = if line.len() <= EXCERPT_CHARS_MAX { 0 } else { skip };
        let text: String = line.iter().skip(skip).take(EXCERPT_CHARS_MAX).collect();
        let mark_at = start.column - 1 - skip;
        Self { text, mark_at, mark_chars: mark_chars.min(EXCERPT_CHARS_MAX.saturating_sub(mark_at).max(1)) }
    }
}

/// Control characters would move the mark, or do worse to a terminal.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn yellow(self, text: &str) -> String {
        self.with("1;33", text)
    }

    fn blue(self, text: &str) -> String {
        self.with("34", text)
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str, span: Range<usize>) -> String {
        let mistake = Mistake::new(span, "message").label("label").help("help");
        Findings::new(Severity::Error, Source::new("f.toml", text), vec![mistake]).render(false)
    }

    #[test]
    fn the_mark_stands_under_the_words() {
        let shown = render("a = 1\n\tb\u{e9} = wrong # x\n", 13..18);
        assert_eq!(
            shown,
            "error: message\n --> f.toml:2:7\n  |\n2 |  b\u{e9} = wrong # x\n  |       ^^^^^ label\n  = help\n\n"
        );
    }

    #[test]
    fn long_lines_and_empty_spans_stay_readable() {
        let text = format!("{}here{}", "x".repeat(500), "y".repeat(500));
        let shown = render(&text, 500..504);
        assert!(shown.lines().all(|line| line.chars().count() < 140), "{shown}");
        let (mark, code) = (shown.lines().nth(4).unwrap_or(""), shown.lines().nth(3).unwrap_or(""));
        assert_eq!(mark.find('^').map(|at| &code[at..at + 4]), Some("here"));
        assert!(render("", 0..0).contains('^'));
        assert!(render("k = \"\x1b[2J\"", 0..1).contains('\u{fffd}'));
    }

    #[test]
    fn a_flood_of_mistakes_is_cut() {
        let list = (0..MISTAKES_SHOWN_MAX + 7).map(|n| Mistake::new(n..n, format!("m{n}"))).collect();
        let findings = Findings::new(Severity::Error, Source::new("f", "x".repeat(2000)), list);
        assert!(findings.render(false).ends_with("and 7 more\n"));
    }
}
