use super::*;
use crate::core::time::{EngineMs, Span};

fn id(n: u8) -> LatchId {
    LatchId::from_random([n; 16])
}

#[test]
fn names_follow_the_rules_of_kubernetes() {
    let (long, longer) = ("a".repeat(63), "a".repeat(64));
    let (subdomain, too_long) = ("a.".repeat(126) + "a", "a.".repeat(126) + "aa");
    for good in ["a", "0", "build-x7k", "a.b-c.d", &longer, &subdomain] {
        assert!(WorkflowName::parse(good).is_ok(), "{good}");
    }
    let cases = [
        ("", "workflow name is empty"),
        ("A", "workflow name contains 'A' at byte 0, which is not allowed"),
        ("t1?dryRun=All&x=", "workflow name contains '?' at byte 2, which is not allowed"),
        ("../../secrets", "workflow name contains '/' at byte 2, which is not allowed"),
        ("a b", "workflow name contains character U+0020 at byte 1, which is not allowed"),
        ("a\n", "workflow name contains character U+000A at byte 1, which is not allowed"),
        ("ä", "workflow name contains character U+00E4 at byte 0, which is not allowed"),
        ("%2e", "workflow name contains '%' at byte 0, which is not allowed"),
        (&too_long, "workflow name is too long (254 bytes > max of 253)"),
    ];
    for (bad, message) in cases {
        assert_eq!(WorkflowName::parse(bad).unwrap_err().to_string(), message);
    }
    for bad in ["-a", "a-", ".a", "a.", "a..b", "a.-b", "a-.b", ".", ".."] {
        let message = WorkflowName::parse(bad).unwrap_err().to_string();
        assert!(message.contains("must begin and end with a letter or digit"), "{bad}: {message}");
    }
    assert!(Namespace::parse(&long).is_ok());
    for bad in ["a.b", &longer, "default/workflows/t1?x=", "-", "", "Default"] {
        assert!(Namespace::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn ids_are_uuids() {
    let shown = id(7).to_string();
    assert_eq!(shown, "07070707-0707-4707-8707-070707070707");
    assert_eq!(shown.parse(), Ok(id(7)));
    assert_eq!(shown.to_uppercase().parse(), Ok(id(7)));
    for bad in ["", "x", "07070707070747078707070707070707", "{07070707-0707-4707-8707-070707070707}", &"-".repeat(36)]
    {
        assert!(bad.parse::<LatchId>().is_err(), "{bad}");
    }
}

#[test]
fn outputs_are_bounded() {
    let of = |count: usize, bytes: usize| {
        let name = |n: usize| ParameterName::parse(&format!("p{n:03}")).unwrap();
        Outputs::new((0..count).map(|n| (name(n), Arc::from("x".repeat(bytes - 4)))).collect())
    };
    assert!(of(limits::LATCH_OUTPUTS, 256).is_ok());
    assert_eq!(of(limits::LATCH_OUTPUTS + 1, 4).unwrap_err().to_string(), "outputs must be at most 64");
    let message = of(1, limits::LATCH_OUTPUTS_BYTES + 1).unwrap_err().to_string();
    assert_eq!(message, "text of outputs is too long (16385 bytes > max of 16384)");
}

/// Whoever binds to a released latch has the whole time again after a restart.
#[test]
fn a_restart_gives_a_released_latch_its_whole_time() {
    let at = |ms| Now { engine: EngineMs(ms), wall: WallMs(0) };
    let target =
        Target { workflow: "w".parse().unwrap(), namespace: "n".parse().unwrap(), workflow_uid: None, node: None };
    let new = NewLatch { id: id(1), target, ending: Ending::default() };
    let released = Released { revision: Revision(1), forget: Deadline::after(at(0), Span::mins(1)) };
    let latch = Latch::restored(new, WallMs(0), WallMs(0), Some(released)).restarted(at(5_000));
    assert_eq!(latch.released().unwrap().forget, Deadline::after(at(5_000), Span::mins(1)));
}
