//! Who gets in: passwords, the API's word on tokens, and several ways at once.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::*;

const AM: &str = "system:serviceaccount:monitoring:am";

/// An API that knows these tokens, and counts how often it was asked.
#[derive(Debug, Default)]
struct Api {
    users: Mutex<BTreeMap<String, Result<Option<String>, CallError>>>,
    asked: Mutex<Vec<(String, String)>>,
    hangs: std::sync::atomic::AtomicBool,
}

impl Api {
    fn know(&self, token: &str, answer: Result<Option<&str>, CallError>) {
        let answer = answer.map(|user| user.map(str::to_owned));
        self.users.lock().unwrap().insert(token.into(), answer);
    }
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl TokenReviews for Api {
    fn review<'a>(
        &'a self,
        token: &'a str,
        audience: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Option<String>, CallError>> + Send + 'a>> {
        self.asked
            .lock()
            .unwrap()
            .push((token.into(), audience.into()));
        let users = self.users.lock().unwrap();
        let answer = users.get(token).cloned().unwrap_or(Ok(None));
        if self.hangs.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(answer))
    }
}

fn by_review(api: &Arc<Api>) -> Method {
    let api = Arc::clone(api);
    Method::Review(Reviews::new(
        api,
        "nodemend".into(),
        &["monitoring/am".into()],
    ))
}

fn status(hook: &Hook, authorization: &str) -> u16 {
    let request = post(PAYLOAD, &[("authorization", authorization)]);
    ask(&hook.router, request).status.as_u16()
}

fn basic(text: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(text))
}

#[test]
fn h66_a_token_of_the_cluster_lets_in_whom_the_api_names() {
    let api = Arc::new(Api::default());
    api.know("good", Ok(Some(AM)));
    api.know("tenant", Ok(Some("system:serviceaccount:tenant:am")));
    let hook = hook(Auth::AnyOf(vec![by_review(&api)]), LIMITS);
    check_refused(&hook, post(PAYLOAD, &[]), 401, Refusal::Unauthorized);
    for header in ["Bearer", "Bearer ", "Basic good", "good"] {
        let request = post(PAYLOAD, &[("authorization", header)]);
        check_refused(&hook, request, 401, Refusal::Unauthorized);
    }
    assert_eq!(api.asked(), 0, "there was no token to ask of");
    // Expired, for another audience, or of none at all; and of one who may not.
    for token in ["Bearer expired", "Bearer tenant"] {
        let request = post(PAYLOAD, &[("authorization", token)]);
        check_refused(&hook, request, 401, Refusal::Unauthorized);
    }
    assert_eq!(status(&hook, "Bearer good"), 200);
    assert_eq!(hook.store.specs()[0].sender, AM);
    let asked = api.asked.lock().unwrap();
    assert!(asked.iter().all(|(_, audience)| audience == "nodemend"));
}

#[test]
fn h66_while_the_api_is_down_nobody_new_gets_in() {
    let api = Arc::new(Api::default());
    for error in [
        CallError::NoAnswer("down".into()),
        CallError::Refused("not allowed to ask".into()),
        CallError::NotNow("busy".into()),
    ] {
        api.know("good", Err(error));
        let hook = hook(Auth::AnyOf(vec![by_review(&api)]), LIMITS);
        let request = post(PAYLOAD, &[("authorization", "Bearer good")]);
        check_refused(&hook, request, 503, Refusal::Review);
        // It is not remembered.
        api.know("good", Ok(Some(AM)));
        assert_eq!(status(&hook, "Bearer good"), 200);
    }
}

#[test]
fn h66_the_word_on_a_token_counts_for_a_minute() {
    let api = Arc::new(Api::default());
    api.know("good", Ok(Some(AM)));
    let hook = hook(Auth::AnyOf(vec![by_review(&api)]), LIMITS);
    let at = |seconds, token: &str, expect: u16, asked: usize| {
        hook.clock.store(seconds, Ordering::Relaxed);
        let header = format!("Bearer {token}");
        assert_eq!(status(&hook, &header), expect, "at {seconds}");
        assert_eq!(api.asked(), asked, "at {seconds}");
    };
    at(0, "good", 200, 1);
    at(0, "bad", 401, 2);
    api.know("good", Ok(None));
    at(59, "good", 200, 2);
    at(59, "bad", 401, 2);
    at(60, "good", 401, 3);
    // A clock that was set back makes no answer older.
    api.know("good", Ok(Some(AM)));
    at(-10, "good", 200, 4);
}

#[test]
fn h66_strangers_tokens_do_not_push_out_what_is_known() {
    let api = Arc::new(Api::default());
    api.know("good", Ok(Some(AM)));
    let hook = hook(Auth::AnyOf(vec![by_review(&api)]), LIMITS);
    assert_eq!(status(&hook, "Bearer good"), 200);
    for number in 0..300 {
        hook.clock.store((number >= 45).into(), Ordering::Relaxed);
        assert_eq!(status(&hook, &format!("Bearer {number}")), 401);
    }
    assert_eq!(api.asked(), 301);
    assert_eq!(status(&hook, "Bearer good"), 200);
    assert_eq!(status(&hook, "Bearer 299"), 401);
    assert_eq!(api.asked(), 301);
    assert_eq!(status(&hook, "Bearer 0"), 401);
    assert_eq!(api.asked(), 302, "the oldest was forgotten");
}

#[test]
fn h3_h68_strangers_tokens_that_wait_for_the_api_keep_nobody_else_waiting() {
    let api = Arc::new(Api::default());
    api.know("good", Ok(Some(AM)));
    let hook = hook(Auth::AnyOf(vec![by_review(&api)]), LIMITS);
    assert_eq!(status(&hook, "Bearer good"), 200);
    api.hangs.store(true, Ordering::Relaxed);
    let mut waiting = Vec::new();
    for number in 0..300 {
        let request = post(PAYLOAD, &[("authorization", &format!("Bearer {number}"))]);
        let mut answer = Box::pin(hook.router.clone().oneshot(request));
        match answer.as_mut().now_or_never() {
            None => waiting.push(answer),
            Some(shed) => assert_eq!(shed.unwrap().status(), 503),
        }
    }
    assert_eq!(waiting.len(), 32);
    assert_eq!(api.asked(), 1 + 8, "no more at once than the API stands");
    assert_eq!(
        status(&hook, "Bearer good"),
        200,
        "who is known need not ask"
    );
    drop(waiting);
    api.hangs.store(false, Ordering::Relaxed);
    assert_eq!(status(&hook, "Bearer stranger"), 401);
}

#[test]
fn h66_a_name_and_a_password() {
    let file = token_file("pass:word\n");
    let auth = Auth::AnyOf(vec![Method::Basic("am".into(), file.path().into())]);
    let hook = hook(auth, LIMITS);
    for header in [
        "Basic".to_owned(),
        "Basic am:pass:word".into(),
        basic("am:wrong"),
        basic("other:pass:word"),
        basic("am:"),
        basic("am:pass:word").replace("Basic", "Bearer"),
    ] {
        let request = post(PAYLOAD, &[("authorization", &header)]);
        check_refused(&hook, request, 401, Refusal::Unauthorized);
    }
    assert_eq!(status(&hook, &basic("am:pass:word")), 200);
    assert_eq!(hook.store.specs()[0].sender, "basic/am");
    std::fs::write(file.path(), "").unwrap();
    let request = post(PAYLOAD, &[("authorization", &basic("am:"))]);
    let answer = ask(&hook.router, request);
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn h66_several_ways_each_let_in_only_their_own() {
    let (token, password) = (token_file("token"), token_file("password"));
    let api = Arc::new(Api::default());
    api.know("good", Ok(Some(AM)));
    api.know("down", Err(CallError::NoAnswer("down".into())));
    let auth = Auth::AnyOf(vec![
        Method::Certificate(vec!["am.example".into()]),
        Method::TokenFile(token.path().into()),
        Method::Basic("am".into(), password.path().into()),
        by_review(&api),
    ]);
    let hook = hook(auth, LIMITS);
    for (header, expect) in [
        ("", 401),
        ("Bearer password", 401),
        ("Bearer down", 503),
        ("Bearer token", 200),
        ("Bearer good", 200),
        (&basic("am:token"), 401),
        (&basic("am:password"), 200),
    ] {
        assert_eq!(status(&hook, header), expect, "{header}");
    }
    let mut senders: Vec<String> = hook
        .store
        .specs()
        .into_iter()
        .map(|group| group.sender)
        .collect();
    senders.sort();
    senders.dedup();
    assert_eq!(senders, ["basic/am", AM, "token"]);
    assert!(
        api.asked
            .lock()
            .unwrap()
            .iter()
            .all(|(asked, _)| asked != "token")
    );
    let nobody = super::hook(Auth::AnyOf(Vec::new()), LIMITS);
    check_refused(&nobody, post(PAYLOAD, &[]), 401, Refusal::Unauthorized);
}

#[test]
fn h71_one_senders_word_does_not_end_anothers_alert() {
    let (token, password) = (token_file("token"), token_file("password"));
    let auth = Auth::AnyOf(vec![
        Method::TokenFile(token.path().into()),
        Method::Basic("other".into(), password.path().into()),
    ]);
    let hook = hook(auth, LIMITS);
    let send = |authorization: &str, body: String| {
        let request = post(body, &[("authorization", authorization)]);
        assert_eq!(ask(&hook.router, request).status, StatusCode::OK);
    };
    send("Bearer token", firing());
    let of_token = || {
        let mut groups = hook.store.specs();
        groups.retain(|group| group.sender == "token");
        groups
    };
    let before = of_token();
    hook.clock.store(60, Ordering::Relaxed);
    let forged = firing()
        .replace(r#""status":"firing""#, r#""status":"resolved""#)
        .replace("0001-01-01T00:00:00Z", &at(60).to_string());
    send(&basic("other:password"), forged.clone());
    assert_eq!(of_token(), before);
    assert_eq!(hook.store.specs().len(), 2);
    assert_eq!(hook.store.signal(at(120)), SignalState::Firing);
    // The sender itself can.
    send("Bearer token", forged);
    assert_eq!(hook.store.signal(at(120)), SignalState::Clear);
}
