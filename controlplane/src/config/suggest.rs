// SPDX-License-Identifier: MIT OR Apache-2.0
//! "Did you mean": the nearest of a few known words.

/// The candidate nearest to `word`, if it is near enough to be a slip of the
/// fingers: at most one edit for every three characters, at least one. Words
/// over 64 characters are nobody's slip and cost nothing here.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length > 64 {
        return None;
    }
    let allowed = (length / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Insertions, removals, replacements and swaps of neighbours that turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // rows[i][j]: edits between the first i characters of a and the first j of b.
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let differ = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + differ);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let keys = ["name", "policy", "selector", "quiesce"];
        assert_eq!(nearest("polcy", keys), Some("policy"));
        assert_eq!(nearest("qiuesce", keys), Some("quiesce"));
        assert_eq!(nearest("nmae", keys), Some("name"));
        assert_eq!(nearest("timeout", keys), None);
        assert_eq!(nearest(&"x".repeat(1000), keys), None);
    }
}
