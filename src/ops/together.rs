//! Which tensors one launch can handle together, each in a layer of the grid.

use crate::device::Tensor;

/// Workgroups of the largest tensor of a launch from which on the others must not need much fewer:
/// every layer has as many as the largest, and those would mostly find nothing to do.
const EVEN_FROM: usize = 1024;

/// `items` in groups of at most `most` whose tensors share a buffer, the first of a group with the
/// most workgroups.
pub(super) fn groups<'a, T>(
    items: impl IntoIterator<Item = &'a T>,
    most: usize,
    tensor: impl Fn(&T) -> &Tensor,
    workgroups: impl Fn(&T) -> usize,
) -> Vec<Vec<&'a T>> {
    let mut items: Vec<&T> = items.into_iter().collect();
    items.sort_by_key(|item| std::cmp::Reverse(workgroups(item)));
    let mut groups: Vec<Vec<&T>> = Vec::new();
    for item in items {
        let home = groups.iter_mut().find(|group| {
            let largest = workgroups(group[0]);
            let even = largest < EVEN_FROM || 4 * workgroups(item) >= largest;
            even && group.len() < most && tensor(item).shares_buffer(tensor(group[0]))
        });
        match home {
            Some(group) => group.push(item),
            None => groups.push(vec![item]),
        }
    }
    groups
}
