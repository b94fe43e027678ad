use super::*;
use serde_json::json;
use std::{fs, time::Instant};

fn compile(text: &str) -> Result<Policy, Error> {
    Policy::compile(PolicyRef::parse("test@1").unwrap(), [("autonomy.rego", text)], None)
}

/// Compiles a module of package `autonomy` with this body.
fn policy(body: &str) -> Policy {
    compile(&format!("package autonomy\n{body}\n")).unwrap()
}

fn ask(policy: &Policy, params: &serde_json::Value) -> Outcome {
    policy.evaluate(&ToolName::parse("tool.echo").unwrap(), params)
}

#[test]
fn only_a_literal_true_allows() {
    let cases = [
        ("allow := true", "allowed"),
        ("default allow := false\nallow if input.kind == \"tool.echo\"", "allowed"),
        ("default allow := false\nallow if input.params.n == 7", "allowed"),
        ("allow if { some x in input.params.tags; x == \"b\" }", "allowed"),
        ("allow if not deny\ndeny if input.params.n > 100", "allowed"),
        ("allow if allowed with input.params.n as 8\nallowed if input.params.n == 8", "allowed"),
        ("allow if count(input) == 2", "allowed"), // kind and params, nothing else
        ("allow if regex.match(`^tool\\.`, input.kind)", "allowed"),
        ("allow if numbers.range(1, 3) == [1, 2, 3]", "allowed"),
        ("allow if numbers.range(3, 1) == [3, 2, 1]", "allowed"),
        ("allow if numbers.range_step(0, 7, 3) == [0, 3, 6]", "allowed"),
        ("allow if bits.lsh(3, 4) == 48", "allowed"),
        ("allow if { print(\"seen\", input.kind); true }", "allowed"),
        ("allow := false", "denied"),
        ("default allow := false\nallow if input.kind == \"tool.shell\"", "denied"),
        ("allow if input.kind == \"tool.shell\"", "undefined: `data.autonomy.allow` has no value"),
        ("allow if numbers.range(1, \"x\")", "undefined"),
        ("allow := \"true\"", "undefined: `data.autonomy.allow` is a string, not a boolean"),
        ("allow := 1", "undefined: `data.autonomy.allow` is a number"),
        ("allow := null", "undefined: `data.autonomy.allow` is null"),
        ("allow := [true]", "undefined: `data.autonomy.allow` is an array"),
        ("allow contains true", "undefined: `data.autonomy.allow` is a set"),
        ("default allow := {\"a\": true}", "undefined: `data.autonomy.allow` is an object"),
        ("allow := true\nallow := false if input.kind", "failed"),
        ("allow if not allow", "failed"),
    ];
    for (body, wanted) in cases {
        let outcome = ask(&policy(body), &json!({"n": 7, "tags": ["a", "b"]}));
        let found = match &outcome {
            Outcome::Allowed => "allowed".to_owned(),
            Outcome::Denied => "denied".to_owned(),
            Outcome::Undefined(detail) => format!("undefined: {detail}"),
            Outcome::EvaluationFailed(detail) => format!("failed: {detail}"),
        };
        assert!(found.starts_with(wanted), "{body}: wanted {wanted}, found {found}");
        assert!(!found.contains('\n'), "{found}");
    }
}

#[test]
fn the_world_outside_is_not_there() {
    let calls = [
        "http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1/\"})",
        "time.now_ns()",
        "opa.runtime()",
        "uuid.rfc4122(\"x\")",
        "rand.intn(\"x\", 2)",
        "net.lookup_ip_addr(\"localhost\")",
        "rego.parse_module(\"a\", \"package a\")",
    ];
    for call in calls {
        match compile(&format!("package autonomy\nallow if {{ x := {call}; x == x }}\n")) {
            Err(Error::Syntax { .. }) => {}
            Err(other) => panic!("{call}: {other}"),
            Ok(policy) => match ask(&policy, &json!({})) {
                Outcome::EvaluationFailed(detail) => {
                    assert!(detail.contains("not offered") || detail.contains("could not find function"), "{detail}");
                }
                other @ (Outcome::Allowed | Outcome::Denied | Outcome::Undefined(_)) => panic!("{call}: {other:?}"),
            },
        }
    }
}

#[test]
fn a_policy_cannot_hang_or_exhaust_the_runtime() {
    let bodies = [
        // 10^12 combinations.
        "n := numbers.range(1, 10000)\nallow if count([1 | some a in n; some b in n; some c in n; a + b + c < 0]) > 0",
        "n := numbers.range(1, 10000)\nallow if { some a in n; some b in n; some c in n; a + b + c < 0 }",
        "allow if count(numbers.range(0, input.params.huge)) > 0",
        "allow if count(numbers.range(-input.params.huge, input.params.huge)) > 0",
        "allow if count(numbers.range_step(0, input.params.huge, 2)) > 0",
        "allow if bits.lsh(1, input.params.huge) > 0",
        "allow if bits.lsh(input.params.huge, 100) > 0",
    ];
    for body in bodies {
        let policy = policy(body);
        let begun = Instant::now();
        let outcome = ask(&policy, &json!({"huge": i64::MAX}));
        assert!(matches!(outcome, Outcome::EvaluationFailed(_)), "{body}: {outcome:?}");
        assert!(begun.elapsed() < limits::EVALUATION * 20, "{body}: took {:?}", begun.elapsed());
    }
}

#[test]
fn recursion_is_refused_or_fails_but_never_ends_the_process() {
    let policy_ref = || PolicyRef::parse("test@1").unwrap();
    let chain =
        |n: usize| (0..n).map(|i| format!("f{i}(x) := f{}(x)\n", i + 1)).collect::<String>() + &format!("f{n}(x) := x");
    let rules =
        |n: usize| (0..n).map(|i| format!("r{i} if r{}\n", i + 1)).collect::<String>() + &format!("r{n} := true\n");
    let refused = [
        ("f(x) := f(x + 1)".to_owned(), "function `data.autonomy.f` reaches itself"),
        ("f(x) := y if { y := data.autonomy.f(x) }".to_owned(), "reaches itself"),
        ("f(x) := y if { y := data[\"autonomy\"].f(x) }".to_owned(), "reaches itself"),
        ("f(x) if { g(x) }\ng(x) if { h(x) }\nh(x) if { not f(x) }".to_owned(), "reaches itself"),
        ("f(0) := 0\nf(x) := f(x - 1) if x > 0".to_owned(), "reaches itself"),
        ("f(x) := 0 if x == 0 else := f(x - 1)".to_owned(), "reaches itself"),
        ("f(x) := [y | some z in x; y := f(z)]".to_owned(), "reaches itself"),
        ("f(x) if g(x) with g as f\ng(x) := x".to_owned(), "reaches itself"),
        ("a.f(x) := a.f(x)".to_owned(), "reaches itself"),
        (rules(limits::RULE_DEPTH + 1), "more than 32 rules that need one another"),
        (rules(1000), "more than 32 rules that need one another"),
        (rules(1000) + "r1000 if r0", "more than 32 rules that need one another"),
        (chain(limits::RULE_DEPTH + 1), "more than 32 rules that need one another"),
    ];
    for (body, wanted) in refused {
        let message = compile(&format!("package autonomy\n{body}\nallow if true\n")).unwrap_err().to_string();
        assert!(message.contains(wanted), "{body}: {message}");
    }
    let other = ("b.rego", "package b\nimport data.autonomy as up\ng(x) := up.f(x)\n");
    let both = Policy::compile(
        policy_ref(),
        [("a.rego", "package autonomy\nimport data.b.g\nf(x) := g(x)\nallow if f(1)\n"), other],
        None,
    );
    assert!(matches!(both, Err(Error::Recursion(_))), "{both:?}");

    // Functions of one name in two packages, names in texts and comments, and the longest chain are no recursion.
    let fine = [
        "f(x) := data.b.f(x)\nallow if f(1)".to_owned(),
        "f(x) := x # f(x)\nallow if f(true)".to_owned(),
        "f(x) := \"f(x)\"\nallow if f(true)".to_owned(),
        "f(x) := `f(x)`\nallow if f(true)".to_owned(),
        "f(x) := x.f\nallow if f({\"f\": true})".to_owned(),
        format!("{}\nallow if f0(true)", chain(limits::RULE_DEPTH - 2)),
        format!("{}\nallow if r0", rules(limits::RULE_DEPTH - 2)),
        "f(user) := user\nuser := f(input.kind)\nallow if user".to_owned(), // a variable, not the rule
    ];
    for body in fine {
        let modules =
            [("a.rego", format!("package autonomy\n{body}\n")), ("b.rego", "package b\nf(x) := x\n".to_owned())];
        assert_eq!(ask(&Policy::compile(policy_ref(), modules, None).unwrap(), &json!({})), Outcome::Allowed, "{body}");
    }
    // A rule in the circle is found by the evaluator.
    for body in ["allow if f(1)\nf(x) := allow", "allow if a\na if b\nb if allow", "allow if data.autonomy[\"allow\"]"]
    {
        assert!(matches!(ask(&policy(body), &json!({})), Outcome::EvaluationFailed(_)), "{body}");
    }
}

#[test]
fn what_cannot_be_a_policy_is_refused_with_place_and_remedy() {
    let large = format!("package autonomy\nallow := true\n#{}", "x".repeat(limits::MODULE_BYTES));
    let cases = [
        ("", "does not compile at `autonomy.rego:"),
        ("package autonomy\nallow if {", "does not compile at `autonomy.rego:"),
        ("package autonomy\n\nallow { true }\n", "does not compile at `autonomy.rego:3:"),
        ("package other\nallow := true\n", "no module defines `data.autonomy.allow`"),
        ("package autonomy\npermit := true\n", "no module defines `data.autonomy.allow`"),
        ("package autonomy\nallow.a := true\n", "no module defines `data.autonomy.allow`"),
        ("package autonomy.allow\nyes := true\n", "no module defines `data.autonomy.allow`"),
        (&large, "module `autonomy.rego` has more than 1048576 bytes"),
    ];
    for (text, wanted) in cases {
        let message = compile(text).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    let policy_ref = || PolicyRef::parse("test@1").unwrap();
    let none: [(&str, &str); 0] = [];
    assert!(matches!(Policy::compile(policy_ref(), none, None), Err(Error::NoModules)));
    let twice = [("a.rego", "package autonomy\nallow := true\n"); 2];
    assert!(matches!(Policy::compile(policy_ref(), twice, None), Err(Error::DuplicateModule(_))));
    let many = (0..=limits::MODULES).map(|n| (format!("{n}.rego"), "package a\n"));
    assert!(matches!(Policy::compile(policy_ref(), many, None), Err(Error::TooLarge { unit: "modules", .. })));
}

#[test]
fn data_is_one_object_beside_the_rules() {
    let with = |data| {
        let module = ("a.rego", "package autonomy\nallow if input.kind in data.kinds\n");
        Policy::compile(PolicyRef::parse("test@1").unwrap(), [module], Some(data))
    };
    assert_eq!(ask(&with(r#"{"kinds": ["tool.echo"]}"#).unwrap(), &json!({})), Outcome::Allowed);
    assert!(matches!(ask(&with("{}").unwrap(), &json!({})), Outcome::Undefined(_)));
    for data in ["", "[]", "{", "null"] {
        assert!(matches!(with(data), Err(Error::Data(_))), "{data}");
    }
    // Data cannot stand in for the rule.
    let message = with(r#"{"autonomy": {"allow": true}}"#).unwrap_err().to_string();
    assert!(message.contains("its key `autonomy` is the name of a policy package"), "{message}");
}

#[test]
fn threads_share_a_policy_and_calls_do_not_leak_into_each_other() {
    let policy = policy("default allow := false\nallow if input.params.n % 2 == 0");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let policy = &policy;
            scope.spawn(move || {
                for n in 0..500_u64 {
                    let wanted = if n % 2 == 0 { Outcome::Allowed } else { Outcome::Denied };
                    assert_eq!(ask(policy, &json!({"n": n, "thread": thread})), wanted);
                }
            });
        }
    });
    assert_eq!(ask(&policy, &json!({})), Outcome::Denied);
}

#[test]
fn a_folder_is_read_in_order_and_named_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    assert!(matches!(Policy::from_dir(root), Err(Error::NoModules)));
    assert!(matches!(Policy::from_dir(&root.join("none")), Err(Error::Read { .. })));

    fs::create_dir(root.join("sub")).unwrap();
    fs::write(root.join("sub/b.rego"), "package helper\nok if input.kind == \"tool.echo\"\n").unwrap();
    fs::write(root.join("a.rego"), "package autonomy\nallow if data.helper.ok\n").unwrap();
    fs::write(root.join("readme.md"), "not a module").unwrap();
    let first = Policy::from_dir(root).unwrap();
    assert_eq!(ask(&first, &json!({})), Outcome::Allowed);
    let name = first.policy_ref().as_str();
    assert!(name.strip_prefix("dir@sha256:").is_some_and(|hex| hex.len() == 12), "{name}");
    assert_eq!(Policy::from_dir(root).unwrap().policy_ref(), first.policy_ref());

    fs::rename(root.join("sub/b.rego"), root.join("sub/c.rego")).unwrap();
    assert_ne!(Policy::from_dir(root).unwrap().policy_ref(), first.policy_ref());

    fs::write(root.join("latin.rego"), b"package a\n# \xe9\n").unwrap();
    assert!(matches!(Policy::from_dir(root), Err(Error::NotText(_))));
    fs::write(root.join("latin.rego"), "x".repeat(limits::MODULE_BYTES + 1)).unwrap();
    assert!(matches!(Policy::from_dir(root), Err(Error::TooLarge { .. })));
    fs::remove_file(root.join("latin.rego")).unwrap();

    for target in ["a.rego", "sub"] {
        let link = root.join(format!("link-{target}"));
        std::os::unix::fs::symlink(root.join(target), &link).unwrap();
        assert!(matches!(Policy::from_dir(root), Err(Error::NotAFile(_))), "{target}");
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn a_caller_writes_neither_controls_nor_much_text_into_a_detail() {
    let policy = policy("allow if lower(input.params.x) == \"y\"");
    let detail = |x: serde_json::Value| match ask(&policy, &json!({"x": x})) {
        Outcome::EvaluationFailed(detail) => detail,
        outcome @ (Outcome::Allowed | Outcome::Denied | Outcome::Undefined(_)) => panic!("{outcome:?}"),
    };
    let found = detail(json!(["\u{9b}2J\u{7f}\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}é"]));
    assert!(!found.contains(gate_core::text::is_obeyed), "{found:?}");
    assert!(found.starts_with("`lower` expects string argument. Got `[\"\\u{9b}2J\\u{7f}\\u{202e}"), "{found}");
    for text in ["secret".repeat(100), "`` Got ` ".repeat(100), "é".repeat(500), "\u{9b}".repeat(500)] {
        let found = detail(json!([text]));
        assert!(found.len() < 600 && found.ends_with("… (autonomy.rego:2:28)"), "{found}");
        assert!(found.matches("secret").count() <= 10, "{found}");
    }
    assert!(detail(json!([1])).starts_with("`lower` expects string argument. Got `[1]` instead ("));
}
