//! What commands say around a push: in JSON, and of what was typed wrong.

use super::Lab;

#[test]
fn nothing_to_push_is_an_object_of_the_same_kind() {
    let lab = Lab::new();
    lab.change();
    let object = |args: &[&str]| {
        let told = lab.push(args);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        told.as_object().unwrap().clone()
    };
    let some = object(&["--json"]);
    for (args, is_done) in [(&["--json"][..], true), (&["--json", "--dry-run"], false)] {
        let none = object(args);
        assert!(none.keys().eq(some.keys()), "{none:?}");
        assert_eq!((&none["commit"], &none["sent"]), (&serde_json::Value::Null, &0.into()));
        assert_eq!((&none["branch"], &none["is_done"]), (&"main".into(), &is_done.into()));
    }
}
