//! The books of the classic clients: commands of several clients and a member in any order, against a small real pool.
//! After each of them the counts, the hold words and a reference agree (see `baton_rmmt`, `classic/ledger/scripted.rs`).

pub fn run(data: &[u8]) {
    baton_rmmt::run_ledger_script(data);
}

/// Operations of the script: 0 come, 1 go, 2 alloc, 4 free, 5 pre-send, 6 recv, 7 deliver, 8 and 9 the member.
pub fn seeds() -> Vec<Vec<u8>> {
    let come = [0, 0, 0, 1, 0, 2];
    let send = [2, 0, 20, 3, 2, 0, 100, 0, 5, 0, 1, 2, 0, 1];
    let received = [6, 1, 0, 2, 0, 4, 0, 0, 4, 1, 0, 4, 1, 0];
    let with_member = [2, 0, 1, 0, 7, 0, 1, 0, 9, 1, 8, 1, 6, 1, 4, 1, 0, 9, 0, 9, 0];
    let wrong = [6, 2, 0, 2, 0, 6, 1, 1, 2, 0, 6, 1, 0, 3, 0, 4, 0, 250, 4, 0, 251, 5, 0, 4, 1, 0];
    let gone = [1, 0, 6, 1, 0, 2, 0, 1, 1, 0, 1, 2, 1, 9, 3];
    let full: Vec<u8> = std::iter::repeat_n([2, 0, 200, 4, 7, 0, 1, 0], 12).flatten().collect();
    let lists: [&[&[u8]]; 6] = [
        &[&come, &send, &received],
        &[&come, &send, &wrong, &received],
        &[&come, &send, &gone],
        &[&come, &with_member, &gone],
        &[&come, &full, &with_member],
        &[&come, &[0, 0], &send, &gone, &come, &send, &received],
    ];
    lists.iter().map(|list| list.concat()).collect()
}
