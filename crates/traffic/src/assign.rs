//! Who belongs to whom: the pairing of rows and columns with the largest sum of likenesses.
//!
//! The Hungarian method with potentials (Kuhn 1955, Munkres 1957), O(n²m): some tens of road users a frame. Pairs that are
//! not allowed have likeness 0, are never returned, and never keep an allowed pair from being made.

/// The best pairs (row, column) of a matrix of likenesses ≥ 0, row by row of `columns` numbers.
pub(crate) fn best_pairs(likeness: &[f32], rows: usize, columns: usize) -> Vec<(usize, usize)> {
    if rows == 0 || columns == 0 {
        return Vec::new();
    }
    // The method wants at least as many columns as rows.
    let turned = rows > columns;
    let (n, m) = if turned { (columns, rows) } else { (rows, columns) };
    let cost = |i: usize, j: usize| {
        let at = if turned { j * columns + i } else { i * columns + j };
        -f64::from(likeness[at])
    };
    let (mut of_row, mut of_column) = (vec![0.0_f64; n + 1], vec![0.0_f64; m + 1]);
    // Index 0 is a helper; owner[j] is the row that has column j.
    let (mut owner, mut way) = (vec![0_usize; m + 1], vec![0_usize; m + 1]);
    for row in 1..=n {
        owner[0] = row;
        let mut column = 0;
        let (mut least, mut used) = (vec![f64::INFINITY; m + 1], vec![false; m + 1]);
        while owner[column] != 0 {
            used[column] = true;
            let current = owner[column];
            let (mut delta, mut next) = (f64::INFINITY, 0);
            for j in 1..=m {
                if used[j] {
                    continue;
                }
                let reduced = cost(current - 1, j - 1) - of_row[current] - of_column[j];
                if reduced < least[j] {
                    (least[j], way[j]) = (reduced, column);
                }
                if least[j] < delta {
                    (delta, next) = (least[j], j);
                }
            }
            for j in 0..=m {
                if used[j] {
                    of_row[owner[j]] += delta;
                    of_column[j] -= delta;
                } else {
                    least[j] -= delta;
                }
            }
            column = next;
        }
        while column != 0 {
            let before = way[column];
            owner[column] = owner[before];
            column = before;
        }
    }
    let pairs = (1..=m).filter(|&j| owner[j] != 0).map(|j| (owner[j] - 1, j - 1));
    let mut pairs: Vec<_> = pairs
        .map(|(i, j)| if turned { (j, i) } else { (i, j) })
        .filter(|&(row, column)| likeness[row * columns + column] > 0.0)
        .collect();
    pairs.sort_unstable();
    pairs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn total(likeness: &[f32], columns: usize, pairs: &[(usize, usize)]) -> f32 {
        pairs.iter().map(|&(r, c)| likeness[r * columns + c]).sum()
    }

    /// The best sum, by trying everything.
    fn best_sum(likeness: &[f32], columns: usize, row: usize, free: &mut Vec<usize>) -> f32 {
        if row * columns >= likeness.len() {
            return 0.0;
        }
        let mut best = best_sum(likeness, columns, row + 1, free);
        for k in 0..free.len() {
            let column = free.remove(k);
            let value = likeness[row * columns + column] + best_sum(likeness, columns, row + 1, free);
            free.insert(k, column);
            best = best.max(value);
        }
        best
    }

    #[test]
    fn the_greedy_choice_is_not_taken_when_it_costs_more() {
        assert_eq!(best_pairs(&[0.9, 0.8, 0.7, 0.0], 2, 2), [(0, 1), (1, 0)]);
        assert_eq!(best_pairs(&[0.0, 0.0], 1, 2), []);
        assert_eq!(best_pairs(&[], 0, 3), []);
        assert_eq!(best_pairs(&[0.1, 0.9, 0.2], 3, 1), [(1, 0)]);
    }

    proptest! {
        #[test]
        fn nobody_finds_a_better_pairing(rows in 1_usize..5, columns in 1_usize..5, seed in proptest::collection::vec(0_u8..10, 16)) {
            let likeness: Vec<f32> = seed[..rows * columns].iter().map(|&v| f32::from(v) / 10.0).collect();
            let pairs = best_pairs(&likeness, rows, columns);
            for (k, a) in pairs.iter().enumerate() {
                prop_assert!(likeness[a.0 * columns + a.1] > 0.0);
                prop_assert!(pairs[..k].iter().all(|b| a.0 != b.0 && a.1 != b.1));
            }
            let best = best_sum(&likeness, columns, 0, &mut (0..columns).collect());
            prop_assert!((total(&likeness, columns, &pairs) - best).abs() < 1e-4);
        }
    }
}
