package oidc

import (
	"context"
	"fmt"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"
)

// logoutToken is a verified logout token (OpenID Connect Back-Channel Logout 1.0,
// section 2.4): who is to be logged out. One of sid and subject may be empty.
type logoutToken struct {
	sid, subject string
	issued       time.Time // in whole seconds
}

const (
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
	// logoutTokenLife is what a logout token without exp gets (section 2.4 suggests
	// two minutes at most).
	logoutTokenLife = 2 * time.Minute
)

// verifyLogout checks a logout token (section 2.6) in an order in which whoever
// makes tokens up costs us little: nothing of the claims is looked at, and nobody
// but the provider asked, before the signature is right (BC-11). An error that is
// errUnverifiable says nothing about the token.
func (c *Client) verifyLogout(ctx context.Context, raw string) (*logoutToken, error) {
	if err := checkHeader(raw, "JWT", "logout+jwt", "application/logout+jwt"); err != nil {
		return nil, err
	}
	md, err := c.discover(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnverifiable, err)
	}
	var algs []jose.SignatureAlgorithm
	for _, alg := range md.idTokenAlgorithms() {
		algs = append(algs, jose.SignatureAlgorithm(alg))
	}
	jws, err := jose.ParseSignedCompact(raw, algs)
	if err != nil { // which may quote the token
		return nil, flaw("not a JWT with a signature as the provider announces it")
	}
	payload, err := c.keys.verify(ctx, jws, &c.keys.unasked)
	if err != nil {
		return nil, err
	}
	return c.cfg.readLogout(payload, time.Now())
}

// logoutClaims are the claims of a logout token that are read.
type logoutClaims struct {
	jwt.Claims
	SID    string                     `json:"sid"`
	Events map[string]json.RawMessage `json:"events"`
}

// logoutNames are the claims that decide about a logout token.
var logoutNames = []string{"iss", "aud", "sub", "sid", "iat", "exp", "nbf", "events", "nonce"}

// readLogout checks the claims of a logout token that the provider signed.
func (c *Config) readLogout(payload []byte, now time.Time) (*logoutToken, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(payload, &members); err != nil {
		return nil, flaw("its claims are no JSON object, or there twice")
	}
	if err := checkNames(members); err != nil {
		return nil, err
	}
	var claims logoutClaims
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, flaw("a claim is of the wrong type")
	}
	if claims.Issuer != c.Issuer {
		return nil, flaw("it is of another issuer")
	}
	if err := checkUse(&claims.Claims, []string{c.ClientID}, c.ClockSkew, now); err != nil {
		return nil, err
	}
	if err := c.checkExpiry(&claims, now); err != nil {
		return nil, err
	}
	if err := claims.checkLogout(members); err != nil {
		return nil, err
	}
	return &logoutToken{sid: claims.SID, subject: claims.Subject, issued: claims.IssuedAt.Time()}, nil
}

// checkNames refuses claims that readers who fold the case of names would take
// for others.
func checkNames(members map[string]json.RawMessage) error {
	for member := range members {
		for _, name := range logoutNames {
			if member != name && strings.EqualFold(member, name) {
				return flaw("its claims can be read in two ways")
			}
		}
	}
	return nil
}

// checkExpiry asks for exp. Where the operator allows to do without (BC-03), iat
// must be recent instead.
func (c *Config) checkExpiry(claims *logoutClaims, now time.Time) error {
	switch {
	case claims.Expiry != nil:
		return nil
	case !c.Logout.AllowMissingExp:
		return flaw("exp is missing")
	case claims.IssuedAt.Time().Before(now.Add(-logoutTokenLife - c.ClockSkew)):
		return fmt.Errorf("%w, at %v", flaw("exp is missing, and it was issued too long ago"), claims.IssuedAt.Time().UTC())
	}
	return nil
}

// checkLogout is what tells a logout token from any other token of the provider's
// (section 2.6, steps 4 to 6).
func (c *logoutClaims) checkLogout(members map[string]json.RawMessage) error {
	if _, ok := members["nonce"]; ok {
		return flaw("it has a nonce, so it is no logout token")
	}
	var event map[string]json.RawMessage
	if err := json.Unmarshal(c.Events[logoutEvent], &event); err != nil || event == nil {
		return flaw("it has no logout event, so it is no logout token")
	}
	_, sub := members["sub"]
	_, sid := members["sid"]
	if !sub && !sid || sub && c.Subject == "" || sid && c.SID == "" {
		return flaw("neither sub nor sid says who is to be logged out")
	}
	return nil
}
