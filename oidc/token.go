package oidc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
	"golang.org/x/oauth2"

	"sessiongate/session"
)

// exchange redeems an authorization code (RFC 6749, section 4.1.3; RFC 7636,
// section 4.5). Errors are *callError, or why the request could not be made.
func (c *Client) exchange(ctx context.Context, code, verifier string) (*oauth2.Token, error) {
	return c.token(ctx, "code exchange", url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code},
		"redirect_uri":  {c.redirectURI()},
		"code_verifier": {verifier},
	})
}

// redirectURI comes from the configuration alone, never from a request (LOG-07).
func (c *Client) redirectURI() string { return c.cfg.Origin + c.cfg.BasePath + "/callback" }

// Refresh asks for new tokens (RFC 6749, section 6), once: what must become of a
// refresh token whose answer was lost is the caller's to say. It asks for no
// scope, so it gets no other than it had.
//
// session.ErrRejected: the provider refuses this refresh token. *session.Outage:
// all else.
func (c *Client) Refresh(ctx context.Context, refreshToken string) (*oauth2.Token, error) {
	tok, err := c.token(ctx, "refresh", url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {refreshToken},
	})
	var failed *callError
	switch {
	case err == nil:
		return tok, nil
	case errors.As(err, &failed) && failed.rejected():
		return nil, fmt.Errorf("%w: %w", session.ErrRejected, err)
	}
	return nil, outage(err)
}

// Revoke makes the refresh token useless (RFC 7009), or the access token where
// there is no other: a provider that revokes a refresh token does so for its
// access tokens (section 2.1). It answers 200 for one that was useless already.
// Without a token, without a revocation endpoint, or with Logout.Revoke off, there
// is nothing to do.
//
// *session.Outage: it is worth another try (section 2.2.1). Any other error: it
// is not.
func (c *Client) Revoke(ctx context.Context, refreshToken, accessToken string) error {
	token, hint := refreshToken, "refresh_token"
	if token == "" {
		token, hint = accessToken, "access_token"
	}
	if token == "" || !c.cfg.Logout.Revoke {
		return nil
	}
	md, err := c.discover(ctx)
	if err != nil {
		return outage(c.undiscovered(err))
	}
	if md.RevocationEndpoint == "" {
		return nil
	}
	a, err := c.post(ctx, md, md.RevocationEndpoint, "revocation", url.Values{
		"token":           {token},
		"token_type_hint": {hint},
	})
	if err == nil && a.status != http.StatusOK {
		err = a.refusal("revocation")
	}
	if passing(err) {
		return outage(err)
	}
	return err
}

// passing tells whether the failure of a call may be over soon.
func passing(err error) bool {
	var failed *callError
	if !errors.As(err, &failed) {
		return false
	}
	return failed.status == 0 || failed.status == http.StatusTooManyRequests || failed.status >= 500
}

// token makes a request of the token endpoint.
func (c *Client) token(ctx context.Context, call string, form url.Values) (*oauth2.Token, error) {
	md, err := c.discover(ctx)
	if err != nil {
		return nil, c.undiscovered(err)
	}
	sent := time.Now()
	a, err := c.post(ctx, md, md.TokenEndpoint, call, form)
	if err != nil {
		return nil, err
	}
	// RFC 6749, section 5.1: 200 and nothing else is success.
	if a.status != http.StatusOK {
		return nil, a.refusal(call)
	}
	tok, err := parseToken(a.body, sent)
	if err != nil {
		return nil, &callError{call: call, status: a.status, err: err}
	}
	return tok, nil
}

// undiscovered is the error of a call for which there is no metadata.
func (c *Client) undiscovered(err error) error {
	return &callError{call: "discovery", unsent: true, retryAfter: c.metadata.retryAfter(), err: err}
}

// post sends an authenticated form.
func (c *Client) post(ctx context.Context, md *metadata, endpoint, call string, form url.Values) (*answer, error) {
	header := make(http.Header)
	if err := c.authenticate(md, form, header); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("oidc: %s: %w", call, err)
	}
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header = header
	return c.do(req, call)
}

// parseToken reads a token response (RFC 6749, section 5.1).
func parseToken(body []byte, sent time.Time) (*oauth2.Token, error) {
	var r struct {
		AccessToken  string          `json:"access_token"`
		TokenType    string          `json:"token_type"`
		RefreshToken string          `json:"refresh_token"`
		IDToken      string          `json:"id_token"`
		ExpiresIn    json.RawMessage `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, errors.New("it is no token response") // err may quote it
	}
	switch {
	case r.AccessToken == "":
		return nil, errors.New("there is no access token in it")
	// RFC 6749, section 7.1: a token of a type one does not know must not be used.
	// Without a type it is Bearer, as for golang.org/x/oauth2: not all send it.
	case r.TokenType != "" && !strings.EqualFold(r.TokenType, "Bearer"):
		return nil, errors.New("its token type is not Bearer")
	case strings.ContainsFunc(r.AccessToken, notVisible):
		return nil, errors.New("its access token cannot be sent in a header")
	}
	tok := &oauth2.Token{AccessToken: r.AccessToken, TokenType: "Bearer", RefreshToken: r.RefreshToken}
	if life := lifetime(r.ExpiresIn); life > 0 {
		// From before the request was sent: rather too early than too late.
		tok.Expiry = sent.Add(life)
	}
	return tok.WithExtra(map[string]any{"id_token": r.IDToken}), nil
}

func notVisible(r rune) bool { return r <= ' ' || r > '~' }

const maxLife = 10 * 365 * 24 * time.Hour

// lifetime reads expires_in, a number or, as some providers send it, a number in
// a string. What is no sensible number counts as absent: 0.
func lifetime(raw json.RawMessage) time.Duration {
	seconds, err := strconv.ParseFloat(strings.Trim(string(raw), `"`), 64)
	if err != nil || math.IsNaN(seconds) || seconds <= 0 || seconds > maxLife.Seconds() {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// oauthCode is what an error code may look like to be shown in logs.
var oauthCode = regexp.MustCompile(`^[a-z_]{1,40}$`)

// refusal is the error for an answer that is not 200 (RFC 6749, section 5.2).
func (a *answer) refusal(call string) error {
	e := &callError{call: call, status: a.status, retryAfter: retryAfter(a.header)}
	var r struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(a.body, &r); err == nil && oauthCode.MatchString(r.Error) {
		e.code = r.Error
	}
	return e
}

// rejected tells whether the provider refuses the grant that was sent: the one
// answer that ends a session at refresh.
func (e *callError) rejected() bool {
	return e.code == "invalid_grant" && (e.status == http.StatusBadRequest || e.status == http.StatusUnauthorized)
}

// notActedOn tells whether the provider certainly left the token that was sent
// as it was.
func (e *callError) notActedOn() bool {
	switch {
	case e.unsent:
		return true
	case e.status == http.StatusTooManyRequests, e.status == http.StatusServiceUnavailable:
		return true
	}
	return e.code != "" && e.status >= 400 && e.status < 500
}

// operators tells whether only an operator can help: RF-10.
func (e *callError) operators() bool {
	return e.code == "invalid_client" || e.code == "unauthorized_client"
}

// outage tells session what kind of failure it was.
func outage(err error) *session.Outage {
	o := &session.Outage{Err: err}
	var failed *callError
	if !errors.As(err, &failed) {
		o.Answered = true // the request was never made
		return o
	}
	o.RetryAfter, o.Answered, o.Operator = failed.retryAfter, failed.notActedOn(), failed.operators()
	return o
}

// maxRetryAfter bounds what a provider can make us wait.
const maxRetryAfter = 5 * time.Minute

// retryAfter reads Retry-After (RFC 9110, section 10.2.3), 0 if there is none.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return max(0, min(time.Until(at), maxRetryAfter))
}
