//! In which order mutants are tried when there is no time for all of them.

use std::collections::BTreeMap;

/// The places of `groups`, in turn: the first of every group, in the order of the groups, then the second of each that has one, and so on.
pub fn in_turn<G: Ord>(groups: impl IntoIterator<Item = G>) -> Vec<usize> {
    let mut by_group: BTreeMap<G, Vec<usize>> = BTreeMap::new();
    for (place, group) in groups.into_iter().enumerate() {
        by_group.entry(group).or_default().push(place);
    }
    let rounds = by_group.values().map(Vec::len).max().unwrap_or_default();
    (0..rounds).flat_map(|round| by_group.values().filter_map(move |places| places.get(round).copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_its_turn() {
        assert_eq!(in_turn(["b", "b", "a", "b", "c", "a"]), [2, 0, 4, 5, 1, 3]);
        assert!(in_turn::<u8>([]).is_empty());
    }
}
