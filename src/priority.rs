//! Which threads of this process go first when there are fewer processors than threads that want one. Where a thread may not
//! change its own, it stays as urgent as before.

/// How much nicer than the others a thread is that goes [`second`]: it gets about a third of their share, which is enough
/// for what it has to do.
#[cfg(target_os = "linux")]
const NICER: i32 = 5;

/// From here on this thread goes second: nobody waits for what it does, but it must not fall behind either.
pub fn second() {
    // The number that `nice` changes belongs to the thread on Linux, and to the whole process elsewhere.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICER);
}

/// From here on this thread gets a processor only when nobody else wants it (`SCHED_IDLE`).
pub fn lowest() {
    #[cfg(target_os = "linux")]
    let _ = thread_priority::set_thread_priority_and_policy(
        thread_priority::thread_native_id(),
        thread_priority::ThreadPriority::Min,
        thread_priority::ThreadSchedulePolicy::Normal(thread_priority::NormalThreadSchedulePolicy::Idle),
    );
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::nice;

    #[test]
    fn a_thread_that_goes_second_leaves_the_others_alone() {
        let before = nice(0).unwrap();
        let second = std::thread::spawn(|| {
            super::second();
            nice(0).unwrap()
        });
        assert_eq!(second.join().unwrap(), (before + super::NICER).min(19));
        assert_eq!(nice(0).unwrap(), before);
    }
}
