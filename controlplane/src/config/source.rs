// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of a configuration file, with byte offsets turned into lines and columns.

use std::ops::Range;

/// One configuration text and the name it is reported under.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
    /// Byte offset at which each line begins; never empty.
    line_starts: Vec<usize>,
}

/// A place in a [`Source`], both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Source {
    /// Keeps `text` under `name`, usually the file's path.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(offset, _)| offset + 1)).collect();
        Self { name: name.into(), text, line_starts }
    }

    /// The name given, usually the file's path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where a byte offset is; an offset beyond the end is the end.
    pub fn position(&self, offset: usize) -> Position {
        let offset = self.floor(offset);
        let index = self.line_starts.partition_point(|start| *start <= offset) - 1;
        let column = self.text[self.line_starts[index]..offset].chars().count() + 1;
        Position { line: index + 1, column }
    }

    /// The text of a line (from 1) without its end, empty if there is no such line.
    pub fn line(&self, line: usize) -> &str {
        let bounds = self.line_bounds(line);
        self.text[bounds].trim_end_matches('\r')
    }

    fn line_bounds(&self, line: usize) -> Range<usize> {
        let Some(start) = line.checked_sub(1).and_then(|index| self.line_starts.get(index)) else {
            return 0..0;
        };
        let end = self.line_starts.get(line).map_or(self.text.len(), |next| next - 1);
        *start..end
    }

    /// The offset itself or, inside a character or past the end, the nearest one before.
    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_lines_and_columns() {
        let source = Source::new("f", "ab\nc\u{e9}d\r\n\nlast");
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(2), Position { line: 1, column: 3 });
        assert_eq!(source.position(3), Position { line: 2, column: 1 });
        // Inside the two bytes of the e-acute.
        assert_eq!(source.position(5), Position { line: 2, column: 2 });
        assert_eq!(source.position(6), Position { line: 2, column: 3 });
        assert_eq!(source.position(999), Position { line: 4, column: 5 });
        assert_eq!((source.line(2), source.line(3), source.line(4)), ("c\u{e9}d", "", "last"));
        assert_eq!((source.line(0), source.line(5)), ("", ""));
    }
}
