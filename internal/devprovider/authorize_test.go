package devprovider

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// do posts a form to the token endpoint.
func (r *rig) do(t *testing.T, form url.Values, basic ...string) *http.Response {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", r.cfg.Issuer+"/token", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if basic != nil {
		req.SetBasicAuth(basic[0], basic[1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res
}

func (r *rig) lastEvent() Event {
	events := r.Events()
	return events[len(events)-1]
}

// open opens a URL without following redirects.
func (r *rig) open(target string) (status int, location, body string) {
	r.t.Helper()
	browser := *r.browser
	browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := browser.Get(target)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Location"), string(page)
}

func TestARequestThatCannotBeTrustedIsNotSentAnywhere(t *testing.T) {
	r := start(t)
	tests := []struct{ name, target string }{
		{"an unknown client", r.request("client_id", "nobody")},
		{"a redirect_uri with one more character", r.request("redirect_uri", redirectURI+"/")},
		{"a redirect_uri in other case", r.request("redirect_uri", "http://LOCALHOST/bff/callback")},
		{"a redirect_uri with a query", r.request("redirect_uri", redirectURI+"?a")},
		{"no redirect_uri", r.request("redirect_uri", "-")},
		{"two redirect_uris", r.request() + "&redirect_uri=x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if status, location, _ := r.open(test.target); status != 400 || location != "" {
				t.Errorf("status = %d, location = %q; want 400 and none", status, location)
			}
		})
	}
}

func TestAWrongRequestIsAnsweredAtItsRedirectURI(t *testing.T) {
	r := start(t)
	tests := []struct{ name, target, want string }{
		{"no PKCE", r.request("code_challenge", "-"), "invalid_request"},
		{"PKCE by plain", r.request("code_challenge_method", "plain"), "invalid_request"},
		{"PKCE without a method", r.request("code_challenge_method", "-"), "invalid_request"},
		{"the implicit flow", r.request("response_type", "id_token token"), "unsupported_response_type"},
		{"no openid", r.request("scope", "profile"), "invalid_scope"},
		{"a form_post", r.request("response_mode", "form_post"), "invalid_request"},
		{"two states", r.request() + "&state=x", "invalid_request"},
		{"prompt none and login", r.request("prompt", "none login"), "invalid_request"},
		{"a max_age that is no number", r.request("max_age", "x"), "invalid_request"},
		{"a request object", r.request("request", "x"), "request_not_supported"},
		{"prompt none without a session", r.request("prompt", "none"), "login_required"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, location, _ := r.open(test.target)
			u, err := url.Parse(location)
			if err != nil {
				t.Fatal(err)
			}
			q := u.Query()
			if !strings.HasPrefix(location, redirectURI+"?") || q.Get("error") != test.want || q.Get("iss") != r.cfg.Issuer || q.Has("code") {
				t.Errorf("location = %q, want error %s with iss", location, test.want)
			}
		})
	}
}

func TestASessionLogsInAgainUnlessTheRequestWantsThePerson(t *testing.T) {
	r := start(t)
	first := r.signIn()
	r.pass(time.Minute)
	tests := []struct {
		name   string
		target string
		asks   bool
	}{
		{"a plain request", r.request(), false},
		{"prompt none", r.request("prompt", "none"), false},
		{"a hint at the same user", r.request("login_hint", "ADA@example.com"), false},
		{"a max_age that is not over", r.request("max_age", "100"), false},
		{"prompt login", r.request("prompt", "login"), true},
		{"prompt select_account", r.request("prompt", "select_account"), true},
		{"a hint at another user", r.request("login_hint", "grace@example.com"), true},
		{"a max_age that is over", r.request("max_age", "60"), true},
		{"a max_age of zero", r.request("max_age", "0"), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status, location, page := r.open(test.target)
			if test.asks && (status != 200 || !strings.Contains(page, "Ada Lovelace")) {
				t.Errorf("status = %d, location %q; want the login page", status, location)
			}
			if !test.asks && !strings.Contains(location, "code=") {
				t.Errorf("status = %d, location %q; want a code", status, location)
			}
		})
	}
	if first.Get("code") == r.signIn().Get("code") {
		t.Error("the same code twice")
	}
}

func TestPasswordsAreChecked(t *testing.T) {
	r := start(t)
	for password, wanted := range map[string]bool{"": false, "fortran": false, "cobol": true} {
		_, err := SignIn(&http.Client{}, r.request(), "grace@example.com", password)
		if (err == nil) != wanted {
			t.Errorf("password %q: %v, want success %v", password, err, wanted)
		}
	}
}

func TestTheLoginFormIsNotForOtherSites(t *testing.T) {
	r := start(t)
	target := strings.Replace(r.request(), "/authorize?", "/login?", 1)
	req, _ := http.NewRequestWithContext(t.Context(), "POST", target, strings.NewReader("user=ada"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", "https://evil.example")
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 400 || res.Header.Get("Set-Cookie") != "" {
		t.Errorf("status = %d, want 400 without a cookie", res.StatusCode)
	}
}

func TestThePageEscapesWhatTheRequestCarries(t *testing.T) {
	r := start(t)
	_, _, page := r.open(r.request("login_hint", `"><script>alert(1)</script>`, "state", `"><script>`))
	if strings.Contains(page, "<script") || !strings.Contains(page, "&lt;script&gt;") {
		t.Errorf("page carries markup of the request:\n%s", page)
	}
}

func TestLogoutEndsTheSessionAndItsGrants(t *testing.T) {
	r := start(t)
	answer := r.loginTokens()
	hint := answer["id_token"].(string)
	logout := func(pairs ...string) (int, string) {
		q := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			q.Set(pairs[i], pairs[i+1])
		}
		status, location, _ := r.open(r.cfg.Issuer + "/logout?" + q.Encode())
		return status, location
	}
	refusals := [][]string{
		{"post_logout_redirect_uri", afterLogout},
		{"client_id", "nobody"},
		{"id_token_hint", spoil(hint)},
		{"id_token_hint", hint, "client_id", "other"},
		{"id_token_hint", hint, "post_logout_redirect_uri", afterLogout + "/"},
		{"client_id", "other", "post_logout_redirect_uri", afterLogout},
	}
	for _, pairs := range refusals {
		if status, _ := logout(pairs...); status != 400 {
			t.Errorf("logout with %v: status = %d, want 400", pairs, status)
		}
	}
	r.pass(time.Hour) // an ID token that expired still says who leaves
	if stats := r.Stats(); stats.Sessions != 1 || stats.Grants != 1 {
		t.Fatalf("stats = %+v, want the session untouched by refused logouts", stats)
	}
	_, location := logout("id_token_hint", hint, "post_logout_redirect_uri", afterLogout, "state", "a&b")
	if location != afterLogout+"?state=a%26b" {
		t.Errorf("location = %q, want the redirect with its state", location)
	}
	if status, _ := r.refreshWith(answer["refresh_token"]); status != 400 {
		t.Errorf("refresh after logout: status = %d, want 400", status)
	}
	if _, location, _ := r.open(r.request("prompt", "none")); !strings.Contains(location, "login_required") {
		t.Errorf("prompt=none after logout: %q, want login_required", location)
	}
	again := r.loginTokens()
	if status, location := logout("client_id", "shop"); status != 200 || location != "" {
		t.Errorf("logout by client_id: %d %q, want a page", status, location)
	}
	if status, _ := r.refreshWith(again["refresh_token"]); status != 400 {
		t.Errorf("refresh after logout by client_id: status = %d, want 400", status)
	}
}

func TestRevocationEndsAFamilyOrOneAccessToken(t *testing.T) {
	r := start(t)
	userinfo := func(token any) int {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", r.cfg.Issuer+"/userinfo", nil)
		req.Header.Set("Authorization", "Bearer "+token.(string))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	answer := r.loginTokens()
	if got := userinfo(answer["access_token"]); got != 200 {
		t.Fatalf("userinfo: status = %d, want 200", got)
	}
	r.post("/revoke", "token", answer["access_token"].(string))
	if got := userinfo(answer["access_token"]); got != 401 {
		t.Errorf("userinfo with a revoked access token: status = %d, want 401", got)
	}
	_, answer = r.refreshWith(answer["refresh_token"])
	if status, _ := r.post("/revoke", "token", answer["refresh_token"].(string)); status != 200 {
		t.Errorf("revoke: status = %d, want 200", status)
	}
	if status, _ := r.refreshWith(answer["refresh_token"]); status != 400 {
		t.Errorf("refresh after revocation: status = %d, want 400", status)
	}
	if got := userinfo(answer["access_token"]); got != 401 {
		t.Errorf("userinfo of a revoked family: status = %d, want 401", got)
	}
	if status, _ := r.post("/revoke", "token", "nobody's"); status != 200 {
		t.Errorf("revoke of an unknown token: status = %d, want 200 (RFC 7009, 2.2)", status)
	}
}
