package demo

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/internal/devprovider"
)

// login logs the first user in as the gateway does, and returns the tokens.
func login(t *testing.T, cfg *config.Config) (access, id string) {
	t.Helper()
	app := cfg.Apps[0]
	const verifier = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ"
	sum := sha256.Sum256([]byte(verifier))
	redirect := app.Origin + "/bff/callback"
	request := url.Values{
		"client_id": {app.OIDC.ClientID}, "redirect_uri": {redirect}, "response_type": {"code"},
		"scope": {strings.Join(app.OIDC.Scopes, " ")}, "state": {"s"}, "nonce": {"n"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	callback, err := devprovider.SignIn(http.DefaultClient, app.OIDC.Issuer+"/authorize?"+request.Encode(), users[0].Sub, "")
	if err != nil {
		t.Fatal(err)
	}
	back, err := url.Parse(callback)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")},
		"redirect_uri": {redirect}, "code_verifier": {verifier},
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", app.OIDC.Issuer+"/token", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(app.OIDC.ClientID, app.OIDC.ClientSecret.Reveal())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var tokens struct {
		Access string `json:"access_token"`
		ID     string `json:"id_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&tokens); err != nil || tokens.Access == "" {
		t.Fatalf("token: %s, %v", res.Status, err)
	}
	return tokens.Access, tokens.ID
}

func get(t *testing.T, target, token string) (status int, body string) {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", target, nil)
	req.Header.Set("X-Seen", "yes")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}
