//! A kernel without some system calls, for tests: what it answers is what a seccomp filter answers that does not know them. The
//! integration tests have this file, too.

#![expect(unsafe_code, reason = "neither nix nor rustix sets a seccomp filter")]

use std::io;

use nix::errno::Errno;

/// Does `work` on a thread of its own, for which these calls fail.
pub fn without<T: Send>(calls: &[libc::c_long], answer: Errno, work: impl FnOnce() -> T + Send) -> T {
    let filtered = || {
        refuse(calls, answer);
        work()
    };
    std::thread::scope(|scope| scope.spawn(filtered).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn refuse(calls: &[libc::c_long], answer: Errno) {
    let statement = |code: u32, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf, k };
    // The number of the call is the first thing in `seccomp_data`.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for call in calls {
        let number = u32::try_from(*call).unwrap();
        filter.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number));
        filter.push(statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | answer as u32));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    nix::sys::prctl::set_no_new_privs().unwrap();
    // SAFETY: `program` and the filter that it points at live until the call returns; the kernel copies them.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}
