package devprovider

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

func TestALostAnswerRotatesAndARequestThatNeverArrivedDoesNot(t *testing.T) {
	r := start(t)
	token := r.loginTokens()["refresh_token"]
	r.Fail(Fault{Cut: true, Times: 1}, Refresh)
	if status, _ := r.refreshWith(token); status != 0 {
		t.Fatalf("cut before: status = %d, want no answer", status)
	}
	r.Fail(Fault{Cut: true, After: true, Times: 1}, Refresh)
	if status, _ := r.refreshWith(token); status != 0 {
		t.Fatalf("cut after: status = %d, want no answer", status)
	}
	if stats := r.Stats(); len(stats.Reuses) != 0 || stats.Refreshed != 1 {
		t.Errorf("stats = %+v, want one rotation and no reuse", stats)
	}
	if status, _ := r.refreshWith(token); status != 400 || len(r.Stats().Reuses) != 1 {
		t.Errorf("third use: status = %d, want 400 and a reuse", status)
	}
}

func TestFaultsQueueUpAndHeal(t *testing.T) {
	r := start(t)
	token := r.loginTokens()["refresh_token"]
	r.Fail(Fault{Status: 503, RetryAfter: "7", Times: 1}, Token)
	r.Fail(Fault{Error: "invalid_client", Status: 401, Times: 2}, Token)
	r.Fail(Fault{Body: "<html>gateway</html>"}, Token)
	for i, want := range []int{503, 401, 401, 200, 200} {
		status, answer := r.refreshWith(token)
		if status != want || answer["refresh_token"] != nil {
			t.Errorf("refresh %d: %d %v, want %d and no token", i, status, answer, want)
		}
	}
	r.Heal()
	if status, answer := r.refreshWith(token); status != 200 || answer["refresh_token"] == nil {
		t.Errorf("healed: %d %v, want tokens", status, answer)
	}
}

func TestAnswersCanBeSpoilt(t *testing.T) {
	tests := []struct {
		name  string
		fault Fault
		want  func(answer map[string]any, old any) bool
	}{
		{"no refresh token", Fault{NoRotation: true, Edit: Without("refresh_token")}, func(a map[string]any, _ any) bool { return a["refresh_token"] == nil }},
		{"the same refresh token", Fault{NoRotation: true}, func(a map[string]any, old any) bool { return a["refresh_token"] == old }},
		{"odd expires_in", Fault{Edit: With("expires_in", "soon")}, func(a map[string]any, _ any) bool { return a["expires_in"] == "soon" }},
		{"a huge body", Fault{Huge: 1 << 20}, func(a map[string]any, _ any) bool { return len(a["access_token"].(string)) == 1<<20 }},
		{"half a body", Fault{Half: true}, func(a map[string]any, _ any) bool { return a == nil }},
		{"a slow body", Fault{Body: `{"slow":1}`, Drip: time.Millisecond}, func(a map[string]any, _ any) bool { return a["slow"] == 1.0 }},
	}
	r := start(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			token := r.loginTokens()["refresh_token"]
			r.Fail(test.fault, Refresh)
			defer r.Heal()
			if _, answer := r.refreshWith(token); !test.want(answer, token) {
				t.Errorf("answer = %v", answer)
			}
		})
	}
}

func TestIDTokensCanBeForged(t *testing.T) {
	r := start(t)
	provider, err := oidc.NewProvider(t.Context(), r.cfg.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: "shop", SupportedSigningAlgs: []string{"RS256"}})
	for name, fault := range map[string]Fault{
		"a bad signature":   {BadSignature: true},
		"no signature":      {Alg: "none"},
		"the wrong key":     {Alg: "HS256"},
		"another issuer":    {Claims: With("iss", r.cfg.Issuer+"/")},
		"another audience":  {Claims: With("aud", "other")},
		"an expired token":  {Claims: With("exp", 1)},
		"a token not begun": {Claims: With("nbf", time.Now().Add(time.Hour).Unix())},
	} {
		t.Run(name, func(t *testing.T) {
			r.Fail(fault, Code)
			defer r.Heal()
			raw := r.loginTokens()["id_token"].(string)
			if _, err := verifier.Verify(t.Context(), raw); err == nil {
				t.Error("an independent verifier accepts it")
			}
		})
	}
}

func TestMetadataAndCallbackCanBeVaried(t *testing.T) {
	r := start(t)
	r.Fail(Fault{Edit: Without("end_session_endpoint", "revocation_endpoint")}, Discovery)
	res, err := http.Get(r.cfg.Issuer + "/.well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var metadata map[string]any
	if err := json.NewDecoder(res.Body).Decode(&metadata); err != nil {
		t.Fatal(err)
	}
	if metadata["end_session_endpoint"] != nil || metadata["token_endpoint"] == nil {
		t.Errorf("metadata = %v, want all but the removed", metadata)
	}
	r.Fail(Fault{Edit: Without("iss"), Times: 1}, Callback)
	if params := r.signIn(); params.Has("iss") || !params.Has("code") {
		t.Errorf("callback = %v, want a code without iss", params)
	}
	r.Fail(Fault{Error: "access_denied", Times: 1}, Callback)
	if params := r.signIn(); params.Get("error") != "access_denied" || params.Has("code") {
		t.Errorf("callback = %v, want access_denied", params)
	}
}

func TestEveryMintedTokenIsOnRecord(t *testing.T) {
	r := start(t)
	answers := []map[string]any{r.loginTokens()}
	_, next := r.refreshWith(answers[0]["refresh_token"])
	answers = append(answers, next)
	r.Fail(Fault{Cut: true, After: true}, Refresh)
	r.refreshWith(next["refresh_token"])
	minted := r.Tokens()
	if len(minted) != 9 {
		t.Errorf("%d tokens on record, want 9, those of the lost answer too", len(minted))
	}
	var all strings.Builder
	for _, token := range minted {
		all.WriteString(token.Value + "\n")
	}
	for _, answer := range answers {
		for _, kind := range []string{"access_token", "refresh_token", "id_token"} {
			if !strings.Contains(all.String(), answer[kind].(string)) {
				t.Errorf("%s is not on record", kind)
			}
		}
	}
}
