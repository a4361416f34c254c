package devprovider

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// listener is a client's back-channel endpoint that answers 200 and keeps what came.
type listener struct {
	*httptest.Server
	mu       sync.Mutex // guards received
	received []*http.Request
}

func listen(t *testing.T) *listener {
	t.Helper()
	l := &listener{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		l.mu.Lock()
		l.received = append(l.received, r)
		l.mu.Unlock()
		w.Header().Set("Cache-Control", "no-store")
		io.WriteString(w, "done")
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *listener) tokens() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var tokens []string
	for _, r := range l.received {
		tokens = append(tokens, r.PostForm.Get("logout_token"))
	}
	return tokens
}

// told starts a provider whose client shop is told of every logout by sid, and
// whose client other by sub alone.
func told(t *testing.T) (r *rig, shop, other *listener) {
	shop, other = listen(t), listen(t)
	r = start(t, func(c *Config) {
		c.Clients[0].BackChannelLogoutURI, c.Clients[0].BackChannelSessionRequired = shop.URL+"/bff/backchannel", true
		c.Clients[1].BackChannelLogoutURI = other.URL
	})
	return r, shop, other
}

// loginAt logs ada in at another client, by single sign-on where there is any.
func (r *rig) loginAt(client string) {
	r.t.Helper()
	code := r.signIn("client_id", client).Get("code")
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirectURI}, "code_verifier": {verifier}}
	if res := r.do(r.t, form, client, client); res.StatusCode != 200 {
		r.t.Fatalf("redeem at %s: %s", client, res.Status)
	}
}

// newBrowser forgets the session at the provider.
func (r *rig) newBrowser() {
	r.browser.Jar, _ = cookiejar.New(nil)
}

// sid is that of the last login.
func (r *rig) sid() string {
	tokens := r.Tokens()
	return tokens[len(tokens)-1].SID
}

// logoutClaims reads a token as a client has to (Back-Channel Logout 1.0, 2.6).
func (r *rig) logoutClaims(token, client string) map[string]any {
	r.t.Helper()
	provider, err := oidc.NewProvider(r.t.Context(), r.cfg.Issuer)
	if err != nil {
		r.t.Fatal(err)
	}
	id, err := provider.Verifier(&oidc.Config{ClientID: client}).Verify(r.t.Context(), token)
	if err != nil {
		r.t.Fatalf("logout token: %v", err)
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		r.t.Fatal(err)
	}
	return claims
}

func TestALogoutTokenSaysWhatTheSpecificationAsks(t *testing.T) {
	r, shop, other := told(t)
	r.loginTokens()
	r.loginAt("other")
	sid := r.sid()
	sent := r.LogoutSession(sid)
	if len(sent) != 2 || len(shop.tokens()) != 1 || len(other.tokens()) != 1 {
		t.Fatalf("sent = %+v; want one token to each client", sent)
	}
	got := shop.received[0]
	if got.Method != "POST" || got.URL.Path != "/bff/backchannel" || got.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || len(got.PostForm) != 1 {
		t.Errorf("request = %s %s %v, want a form with a logout_token", got.Method, got.URL, got.PostForm)
	}
	claims := r.logoutClaims(shop.tokens()[0], "shop")
	events, _ := json.Marshal(claims["events"])
	if string(events) != `{"http://schemas.openid.net/event/backchannel-logout":{}}` || claims["nonce"] != nil || claims["jti"] == nil ||
		claims["sub"] != "ada" || claims["sid"] != sid || claims["exp"].(float64)-claims["iat"].(float64) != 120 {
		t.Errorf("claims = %v, want those of a logout token with sid %s", claims, sid)
	}
	head, err := base64.RawURLEncoding.DecodeString(strings.Split(shop.tokens()[0], ".")[0])
	if err != nil || !strings.Contains(string(head), `"typ":"logout+jwt"`) {
		t.Errorf("header = %s, %v; want typ logout+jwt", head, err)
	}
	claims = r.logoutClaims(other.tokens()[0], "other")
	if claims["sub"] != "ada" || claims["sid"] != nil {
		t.Errorf("claims = %v, want sub alone for a client that does not ask for sid", claims)
	}
	if sent[0].Status != 200 || sent[0].Body != "done" || sent[0].Header.Get("Cache-Control") != "no-store" || sent[0].Token != shop.tokens()[0] {
		t.Errorf("sent = %+v, want the client's answer", sent[0])
	}
	if all := r.LogoutTokens(); len(all) != 2 {
		t.Errorf("%d logout tokens on record, want 2", len(all))
	}
}

func TestWhoIsTold(t *testing.T) {
	tests := []struct {
		name        string
		end         func(*rig)
		shop, other int
	}{
		{"one session, of the two that the client has", func(r *rig) { r.LogoutSession(r.sid()) }, 1, 0},
		{"all sessions: a token each by sid, and one by sub alone", func(r *rig) { r.loginAt("other"); r.newBrowser(); r.loginAt("other"); r.Logout("ada") }, 2, 1},
		{"another user", func(r *rig) { r.Logout("grace") }, 0, 0},
		{"a session twice", func(r *rig) { r.LogoutSession(r.sid()); r.LogoutSession(r.sid()) }, 1, 0},
		{"a client that revoked its tokens and sends its user here, as any", func(r *rig) {
			answer := r.loginTokens()
			r.post("/revoke", "token", answer["refresh_token"].(string))
			r.loginAt("other")
			r.open(r.cfg.Issuer + "/logout?id_token_hint=" + answer["id_token"].(string))
		}, 1, 1},
		{"a revocation, which is no logout", func(r *rig) { r.RevokeUser("ada") }, 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, shop, other := told(t)
			r.loginTokens()
			r.newBrowser()
			r.loginTokens()
			test.end(r)
			if len(shop.tokens()) != test.shop || len(other.tokens()) != test.other {
				t.Errorf("shop was told %d times and other %d times, want %d and %d", len(shop.tokens()), len(other.tokens()), test.shop, test.other)
			}
		})
	}
}

func TestALogoutEndsWhatTheSessionGave(t *testing.T) {
	r, _, _ := told(t)
	answer := r.loginTokens()
	code := r.signIn().Get("code")
	r.LogoutSession(r.sid())
	if status, _ := r.refreshWith(answer["refresh_token"]); status != 400 {
		t.Errorf("refresh: status = %d, want 400", status)
	}
	if status, _ := r.redeem(code); status != 400 {
		t.Errorf("a code of the session: status = %d, want 400", status)
	}
	if _, location, _ := r.open(r.request("prompt", "none")); !strings.Contains(location, "login_required") {
		t.Errorf("prompt=none: %q, want login_required", location)
	}
}

// BC-12: a client must not lose what it hears while it waits for its tokens.
func TestALogoutTokenCanOvertakeTheAnswerToTheCode(t *testing.T) {
	r, shop, _ := told(t)
	code := r.signIn().Get("code")
	before := 0
	r.Fail(Fault{After: true, Times: 1, Wait: func() { r.LogoutSession(r.sid()); before = len(shop.tokens()) }}, Code)
	status, answer := r.redeem(code)
	if before != 1 || status != 200 || answer["access_token"] == nil {
		t.Errorf("%d logout tokens before the answer %d %v, want one, and tokens", before, status, answer)
	}
}

func TestLogoutTokensCanBeForged(t *testing.T) {
	r, shop, _ := told(t)
	decode := func(token string) (header, claims map[string]any) {
		parts := strings.Split(token, ".")
		for i, into := range []*map[string]any{&header, &claims} {
			text, err := base64.RawURLEncoding.DecodeString(parts[i])
			if err == nil {
				err = json.Unmarshal(text, into)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return header, claims
	}
	has := func(m map[string]any, name string) bool { _, ok := m[name]; return ok }
	tests := []struct {
		name  string
		fault Fault
		want  func(header, claims map[string]any, token string) bool
	}{
		{"a nonce", Fault{Claims: With("nonce", "n")}, func(_, c map[string]any, _ string) bool { return c["nonce"] == "n" }},
		{"no events", Fault{Claims: Without("events")}, func(_, c map[string]any, _ string) bool { return c["events"] == nil && c["sub"] != nil }},
		{"a typ", Fault{Typ: "at+jwt"}, func(h, _ map[string]any, _ string) bool { return h["typ"] == "at+jwt" }},
		{"no typ", Fault{Header: Without("typ")}, func(h, _ map[string]any, _ string) bool { return !has(h, "typ") && has(h, "kid") }},
		{"an unknown kid", Fault{Header: With("kid", "x")}, func(h, _ map[string]any, _ string) bool { return h["kid"] == "x" }},
		{"no signature", Fault{Alg: "none"}, func(h, _ map[string]any, s string) bool { return h["alg"] == "none" && strings.HasSuffix(s, ".") }},
		{"the wrong key", Fault{Alg: "HS256"}, func(h, _ map[string]any, _ string) bool { return h["alg"] == "HS256" }},
		{"a bad signature", Fault{BadSignature: true}, func(h, _ map[string]any, s string) bool {
			var claims map[string]any
			return h["alg"] == "RS256" && r.own(s, &claims) != nil
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.fault.Times = 1
			r.Fail(test.fault, BackChannel)
			sent := r.SendLogout("shop", "ada", "s1")
			header, claims := decode(sent.Token)
			if !test.want(header, claims, sent.Token) || sent.Status != 200 {
				t.Errorf("sent = %+v with header %v and claims %v", sent, header, claims)
			}
			if got := shop.tokens(); got[len(got)-1] != sent.Token {
				t.Error("the client got another token")
			}
		})
	}
	if claims := r.logoutClaims(r.SendLogout("shop", "", "s1").Token, "shop"); has(claims, "sub") || claims["sid"] != "s1" {
		t.Errorf("claims after the faults = %v, want a good token with sid alone", claims)
	}
}

func TestALogoutTokenThatIsNotAnsweredIsOnRecord(t *testing.T) {
	r, shop, _ := told(t)
	r.Fail(Fault{Cut: true, Times: 1}, BackChannel)
	if sent := r.SendLogout("shop", "ada", ""); sent.Err == nil || sent.Status != 0 || len(shop.tokens()) != 0 {
		t.Errorf("a cut: %+v, want an error and nothing at the client", sent)
	}
	shop.Close()
	if sent := r.SendLogout("shop", "ada", ""); sent.Err == nil || sent.Status != 0 {
		t.Errorf("a client that is down: %+v, want an error", sent)
	}
	if sent := r.SendLogout("nobody", "ada", ""); sent.Err == nil {
		t.Error("an unknown client: no error")
	}
	if n := len(r.LogoutTokens()); n != 2 {
		t.Errorf("%d on record, want 2", n)
	}
	if token, err := r.LogoutToken("shop", "ada", ""); err != nil || r.logoutClaims(token, "shop")["sub"] != "ada" || len(r.LogoutTokens()) != 2 {
		t.Errorf("LogoutToken = %q, %v; want a token that is not sent", token, err)
	}
}

func TestRegistrationsForLogoutAreChecked(t *testing.T) {
	for uri, good := range map[string]bool{"http://localhost/x?a=b": true, "/bff/backchannel": false, "http://localhost/#x": false, "http://%zz": false} {
		for _, c := range []Client{{BackChannelLogoutURI: uri}, {FrontChannelLogoutURI: uri}} {
			c.ID, c.Secret = "a", "b"
			_, err := New(Config{Issuer: "http://localhost:1", Clients: []Client{c}, Key: testKey()})
			if (err == nil) != good {
				t.Errorf("New with %q: %v, want success %v", uri, err, good)
			}
		}
	}
}

func TestWhoComesByThemselvesIsAskedAndNoOtherSitePressesTheButton(t *testing.T) {
	r, shop, _ := told(t)
	page := r.cfg.Issuer + "/logout"
	if _, _, body := r.open(page); !strings.Contains(body, "Not signed in") {
		t.Errorf("page without a session: %s", body)
	}
	r.loginTokens()
	press := func(origin string) (int, string) {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", page, nil)
		req.Header.Set("Origin", origin)
		res, err := r.browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	if status, _, body := r.open(page); status != 200 || !strings.Contains(body, "Ada Lovelace") || !strings.Contains(body, `method="post"`) {
		t.Errorf("page = %d %s, want the question", status, body)
	}
	if status, _ := press("https://evil.example"); status != 400 || len(shop.tokens()) != 0 || r.Stats().Sessions != 1 {
		t.Errorf("another site's form: status = %d, %d told; want 400 and the session", status, len(shop.tokens()))
	}
	status, body := press(r.cfg.Issuer)
	if status != 200 || !strings.Contains(body, "You are signed out here and at shop.") || len(shop.tokens()) != 1 || r.Stats().Sessions != 0 {
		t.Errorf("the button: %d %s, %d told; want the session ended and the client told", status, body, len(shop.tokens()))
	}
	r.loginTokens()
	shop.Close()
	if _, body := press(r.cfg.Issuer); !strings.Contains(body, "shop was told, and did not confirm.") {
		t.Errorf("a client that is down: %s, want that said", body)
	}
}

func TestFrontChannelFramesComeBeforeTheWayBack(t *testing.T) {
	r := start(t, func(c *Config) {
		c.Clients[0].FrontChannelLogoutURI = "https://shop.example:8443/bff/frontchannel?a=b"
	})
	r.loginTokens()
	answer := r.loginTokens() // the same client, by the same session
	sid := r.sid()
	logout := r.cfg.Issuer + "/logout?" + url.Values{
		"id_token_hint": {answer["id_token"].(string)}, "post_logout_redirect_uri": {afterLogout}, "state": {"x"},
	}.Encode()
	res, err := r.browser.Get(logout)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	frame := `<iframe src="https://shop.example:8443/bff/frontchannel?a=b&amp;iss=` + url.QueryEscape(r.cfg.Issuer) + `&amp;sid=` + sid + `"`
	if !strings.Contains(string(body), frame) || strings.Count(string(body), "<iframe") != 1 {
		t.Errorf("page = %s, want %s and no other frame", body, frame)
	}
	if csp := res.Header.Get("Content-Security-Policy"); !strings.HasSuffix(csp, "; frame-src https://shop.example:8443") {
		t.Errorf("policy = %q, want it to allow the frame", csp)
	}
	if refresh := res.Header.Get("Refresh"); res.StatusCode != 200 || refresh != "0;url="+afterLogout+"?state=x" {
		t.Errorf("%s, Refresh = %q; want the way back", res.Status, refresh)
	}
	if status, location, _ := r.open(logout); status != 303 || location != afterLogout+"?state=x" {
		t.Errorf("again: %d %q, want the way back without frames", status, location)
	}
}

func TestMetadataAnnouncesLogout(t *testing.T) {
	r := start(t)
	provider, err := oidc.NewProvider(t.Context(), r.cfg.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	var metadata map[string]any
	if err := provider.Claims(&metadata); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"backchannel_logout_supported", "backchannel_logout_session_supported", "frontchannel_logout_supported", "frontchannel_logout_session_supported"} {
		if metadata[name] != true {
			t.Errorf("%s = %v, want true", name, metadata[name])
		}
	}
}

func TestADelayHoldsTheTokenBack(t *testing.T) {
	r, shop, _ := told(t)
	r.Fail(Fault{Delay: 30 * time.Millisecond, Wait: func() {
		if len(shop.tokens()) != 0 {
			t.Error("sent before the fault was over")
		}
	}}, BackChannel)
	began := time.Now()
	if sent := r.SendLogout("shop", "ada", ""); sent.Status != 200 || time.Since(began) < 30*time.Millisecond {
		t.Errorf("sent = %+v after %v, want it 30 ms later", sent, time.Since(began))
	}
}
