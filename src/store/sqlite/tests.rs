use super::*;
use crate::store::conformance::conformance;

#[test]
fn conforms() {
    conformance(|| {
        let dir = tempfile::tempdir().unwrap();
        Box::new(move || Box::new(SqliteStore::open(&dir.path().join("locker.db")).unwrap()))
    });
}
