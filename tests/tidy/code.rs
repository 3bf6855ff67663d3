// SPDX-License-Identifier: MIT OR Apache-2.0
//! Just enough Rust to look for words in code: comments and literals blanked out, test
//! modules cut off.

/// The text with comments, strings and characters replaced by blanks; lines stay lines.
pub(crate) fn blank_literals(text: &str) -> String {
    Lexer { rest: text.chars().collect(), at: 0, out: String::with_capacity(text.len()) }.run()
}

/// The text before its `#[cfg(test)] mod tests {`, literals blanked. Files of tests give
/// nothing.
pub(crate) fn production(path: &str, text: &str) -> String {
    let is_test = |part: &str| matches!(part, "tests" | "tests.rs" | "test.rs") || part.ends_with("_test.rs");
    if path.split('/').any(is_test) || path.ends_with("_tests.rs") {
        return String::new();
    }
    let code = blank_literals(text);
    let end = code.find("#[cfg(test)]\nmod ").filter(|at| {
        // `mod name;` only declares; what follows is production code again.
        let line = code[*at..].lines().nth(1).unwrap_or_default();
        line.ends_with('{')
    });
    code[..end.unwrap_or(code.len())].to_owned()
}

/// Line number of a byte offset, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Byte offsets of a word that is not part of a longer one.
pub(crate) fn words(code: &str, word: &str) -> Vec<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let is_alone = |at: &usize| {
        let before = code[..*at].chars().next_back().is_some_and(is_part);
        let after = code[at + word.len()..].chars().next().is_some_and(is_part);
        !before && (!after || !word.ends_with(is_part))
    };
    code.match_indices(word).map(|(at, _)| at).filter(is_alone).collect()
}

struct Lexer {
    rest: Vec<char>,
    at: usize,
    out: String,
}

impl Lexer {
    fn run(mut self) -> String {
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('/')) => self.line_comment(),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('r', Some('"' | '#')) if !self.inside_word() && self.is_raw_string() => self.raw_string(),
                ('\'', Some(next)) if next == '\\' || self.peek(2) == Some('\'') => self.character(),
                _ => self.keep(),
            }
        }
        self.out
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.rest.get(self.at + ahead).copied()
    }

    fn keep(&mut self) {
        self.out.push(self.rest[self.at]);
        self.at += 1;
    }

    /// Blanks of the same length in bytes, so that offsets keep their meaning.
    fn blank(&mut self) {
        let c = self.rest[self.at];
        let blanks = if c == '\n' { "\n" } else { &"    "[..c.len_utf8()] };
        self.out.push_str(blanks);
        self.at += 1;
    }

    fn inside_word(&self) -> bool {
        self.out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.blank();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while let Some(c) = self.peek(0) {
            let pair = (c, self.peek(1));
            self.blank();
            if pair == ('/', Some('*')) {
                depth += 1;
                self.blank();
            } else if pair == ('*', Some('/')) {
                depth -= 1;
                self.blank();
                if depth == 0 {
                    return;
                }
            }
        }
    }

    fn string(&mut self) {
        self.blank();
        while let Some(c) = self.peek(0) {
            self.blank();
            match c {
                '\\' if self.peek(0).is_some() => self.blank(),
                '"' => return,
                _ => {}
            }
        }
    }

    fn is_raw_string(&self) -> bool {
        let mut ahead = 1;
        while self.peek(ahead) == Some('#') {
            ahead += 1;
        }
        self.peek(ahead) == Some('"')
    }

    fn raw_string(&mut self) {
        self.blank();
        let mut hashes = 0;
        while self.peek(0) == Some('#') {
            hashes += 1;
            self.blank();
        }
        self.blank();
        while let Some(c) = self.peek(0) {
            self.blank();
            if c == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                (0..hashes).for_each(|_| self.blank());
                return;
            }
        }
    }

    fn character(&mut self) {
        self.blank();
        while let Some(c) = self.peek(0) {
            self.blank();
            match c {
                '\\' if self.peek(0).is_some() => self.blank(),
                '\'' => return,
                _ => {}
            }
        }
    }
}

#[test]
fn literals_and_comments_are_no_code() {
    let text = "let a = \"unsafe \\\" x\"; // unsafe\nlet b = r#\"unsafe\"#; /* unsafe /* */ */ let c = '\"';\nunsafe {}";
    let code = blank_literals(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(words(&code, "unsafe").iter().map(|at| line_of(&code, *at)).collect::<Vec<_>>(), [3]);
    assert_eq!(blank_literals("fn f<'a>(x: &'a str) { y('b') }"), "fn f<'a>(x: &'a str) { y(   ) }");
    assert!(words("unsafe_code", "unsafe").is_empty());
}

#[test]
fn test_modules_are_not_production() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
    assert_eq!(production("nbd/src/x.rs", text), "fn a() {}\n");
    assert_eq!(production("nbd/src/tests/x.rs", text), "");
    let declared = "#[cfg(test)]\nmod tests;\nfn a() {}\n";
    assert_eq!(production("nbd/src/x.rs", declared), declared);
}
