//! What the container finds in its tree.

use super::fixture::alone;

#[test]
fn a_container_runs() {
    alone("rootfs::a_container_runs", |pod| {
        assert_eq!(pod.output(&pod.spec("echo hello; pwd; hostname")), "hello\n/\npod\n");
    });
}
