package devprovider

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

func TestARefreshTokenIsGoodOnceAndItsReuseEndsTheFamily(t *testing.T) {
	r := start(t)
	first := r.loginTokens()["refresh_token"]
	status, second := r.refreshWith(first)
	if status != 200 || second["refresh_token"] == first {
		t.Fatalf("refresh: %d %v, want a new refresh token", status, second)
	}
	if status, answer := r.refreshWith(first); status != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("reuse: %d %v, want 400 invalid_grant", status, answer)
	}
	if status, answer := r.refreshWith(second["refresh_token"]); status != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("the family's newest token after a reuse: %d %v, want 400 invalid_grant", status, answer)
	}
	stats := r.Stats()
	if len(stats.Reuses) != 1 || stats.Reuses[0] != "grant-1" || stats.Refreshed != 1 || stats.Grants != 0 {
		t.Errorf("stats = %+v, want one reuse in grant-1 and one refresh", stats)
	}
	events := r.Events(Refresh)
	if len(events) != 3 || !events[1].Reuse || events[1].Params.Get("refresh_token") != first {
		t.Errorf("events = %+v, want three refreshes, the second a reuse of the first token", events)
	}
}

func TestOneOfManyParallelUsesOfARefreshTokenWins(t *testing.T) {
	r := start(t)
	token := r.loginTokens()["refresh_token"]
	var wins, mu = 0, sync.Mutex{}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if status, _ := r.refreshWith(token); status == 200 {
				mu.Lock()
				wins++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if stats := r.Stats(); wins != 1 || len(stats.Reuses) != 19 {
		t.Errorf("%d of 20 uses won, %d reuses; want 1 and 19", wins, len(stats.Reuses))
	}
}

func TestRefreshTokensExpireAndAreTheirClientsOwn(t *testing.T) {
	r := start(t)
	token := r.loginTokens()["refresh_token"].(string)
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {"other"}, "client_secret": {"other"}}
	r.cfg.Clients[1].AuthMethods = []string{ClientSecretPost}
	res, err := http.PostForm(r.cfg.Issuer+"/token", form)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 400 {
		t.Errorf("another client's refresh: status = %d, want 400", res.StatusCode)
	}
	r.pass(25 * time.Hour)
	if status, answer := r.refreshWith(token); answer["error"] != "invalid_grant" {
		t.Errorf("expired: %d %v, want invalid_grant", status, answer)
	}
}

func TestWithoutOfflineAccessThereIsNoRefreshToken(t *testing.T) {
	r := start(t)
	if _, answer := r.redeem(r.signIn("scope", "openid").Get("code")); answer["refresh_token"] != nil || answer["access_token"] == nil {
		t.Errorf("answer = %v, want an access token and no refresh token", answer)
	}
}

func TestACodeIsGoodOnceForItsClientVerifierAndRedirect(t *testing.T) {
	tests := []struct {
		name  string
		pairs []string
		after time.Duration
	}{
		{name: "another verifier", pairs: []string{"code_verifier", "x" + verifier[1:]}},
		{name: "no verifier", pairs: []string{"code_verifier", ""}},
		{name: "another redirect_uri", pairs: []string{"redirect_uri", redirectURI + "/"}},
		{name: "a code nobody issued", pairs: []string{"code", "x"}},
		{name: "an expired code", after: 2 * time.Minute},
	}
	r := start(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code := r.signIn().Get("code")
			r.pass(test.after)
			pairs := []string{"grant_type", "authorization_code", "code", code, "redirect_uri", redirectURI, "code_verifier", verifier}
			status, answer := r.post("/token", append(pairs, test.pairs...)...)
			if status != 400 || answer["error"] != "invalid_grant" {
				t.Errorf("status = %d %v, want 400 invalid_grant", status, answer)
			}
		})
	}
	t.Run("a code twice, which revokes its tokens", func(t *testing.T) {
		code := r.signIn().Get("code")
		_, answer := r.redeem(code)
		if status, _ := r.redeem(code); status != 400 {
			t.Errorf("second use: status = %d, want 400", status)
		}
		if status, _ := r.refreshWith(answer["refresh_token"]); status != 400 {
			t.Errorf("refresh after the code's reuse: status = %d, want 400", status)
		}
	})
}

func TestAClientAuthenticatesAsRegisteredOrNotAtAll(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *Config) {
		c.Clients = append(c.Clients,
			Client{ID: "poster", Secret: "p", AuthMethods: []string{ClientSecretPost}},
			Client{ID: "signer", PublicKey: key.Public(), AuthMethods: []string{PrivateKeyJWT}})
	})
	assertion := func(id string, change func(map[string]any)) url.Values {
		claims := map[string]any{"iss": "signer", "sub": "signer", "aud": r.cfg.Issuer, "jti": id, "exp": time.Now().Add(time.Minute).Unix()}
		change(claims)
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		token, err := jwt.Signed(signer).Claims(claims).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return url.Values{"client_assertion": {token}, "client_assertion_type": {assertionType}}
	}
	asIs := func(map[string]any) {}
	tests := []struct {
		name  string
		basic []string
		form  url.Values
		want  string // error; a client that is let in has no token to refresh
	}{
		{"basic", []string{"shop", url.QueryEscape("s3cret & more")}, nil, "invalid_grant"},
		{"basic not form-encoded", []string{"shop", "%zz"}, nil, "invalid_client"},
		{"a wrong secret", []string{"shop", "x"}, nil, "invalid_client"},
		{"an unknown client", []string{"nobody", "x"}, nil, "invalid_client"},
		{"nothing", nil, nil, "invalid_client"},
		{"post", nil, url.Values{"client_id": {"poster"}, "client_secret": {"p"}}, "invalid_grant"},
		{"post where basic is registered", nil, url.Values{"client_id": {"shop"}, "client_secret": {"s3cret & more"}}, "invalid_client"},
		{"basic where post is registered", []string{"poster", "p"}, nil, "invalid_client"},
		{"two methods at once", []string{"poster", "p"}, url.Values{"client_id": {"poster"}, "client_secret": {"p"}}, "invalid_request"},
		{"an assertion", nil, assertion("1", asIs), "invalid_grant"},
		{"an assertion used before", nil, assertion("1", asIs), "invalid_client"},
		{"an assertion for the token endpoint", nil, assertion("2", With("aud", r.cfg.Issuer+"/token")), "invalid_client"},
		{"an assertion with a list as aud", nil, assertion("3", With("aud", []string{r.cfg.Issuer})), "invalid_client"},
		{"an assertion without exp", nil, assertion("4", Without("exp")), "invalid_client"},
		{"an expired assertion", nil, assertion("5", With("exp", 1)), "invalid_client"},
		{"an assertion without jti", nil, assertion("6", Without("jti")), "invalid_client"},
		{"an assertion by another", nil, assertion("7", With("iss", "shop")), "invalid_client"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}
			for name, values := range test.form {
				form[name] = values
			}
			if test.basic != nil {
				r.checkError(t, form, test.want, test.basic[0], test.basic[1])
				return
			}
			r.checkError(t, form, test.want)
		})
	}
}

func (r *rig) checkError(t *testing.T, form url.Values, want string, basic ...string) {
	t.Helper()
	res := r.do(t, form, basic...)
	wantStatus := 400
	if want == "invalid_client" {
		wantStatus = 401
	}
	if got := r.lastEvent().Error; got != want || res.StatusCode != wantStatus {
		t.Errorf("error = %d %s, want %d %s", res.StatusCode, got, wantStatus, want)
	}
}
