package oidc

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"

	"sessiongate/session"
)

// idToken is a verified ID token.
type idToken struct {
	raw      string
	verified *gooidc.IDToken
	claims   idClaims
	payload  json.RawMessage
}

// idClaims are the claims that say something about the token itself.
type idClaims struct {
	jwt.Claims
	AuthorizedParty string           `json:"azp"`
	Nonce           string           `json:"nonce"`
	AuthTime        *jwt.NumericDate `json:"auth_time"`
	SID             string           `json:"sid"`
}

// verify checks an ID token on its own: that this provider signed it, for us, as
// an ID token, and that now is its time (Core 1.0, section 3.1.3.7). An error
// that is errUnverifiable says nothing about the token.
func (c *Client) verify(ctx context.Context, raw string) (*idToken, error) {
	md, err := c.discover(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnverifiable, err)
	}
	if err := checkHeader(raw, "JWT"); err != nil {
		return nil, fmt.Errorf("oidc: id token: %w", err)
	}
	// go-oidc does not wrap the key set's error.
	keys := &signature{keys: c.keys}
	verified, err := gooidc.NewVerifier(c.cfg.Issuer, keys, &gooidc.Config{
		ClientID:             c.cfg.ClientID,
		SupportedSigningAlgs: md.idTokenAlgorithms(),
		SkipExpiryCheck:      true, // ours has the configured leeway
	}).Verify(ctx, raw)
	if keys.err != nil {
		return nil, keys.err
	}
	if err != nil {
		return nil, fmt.Errorf("oidc: id token: %w", err)
	}
	t := &idToken{raw: raw, verified: verified}
	if t.claims, t.payload, err = decodeClaims(raw); err != nil {
		return nil, err
	}
	// go-oidc folds the case of names, and takes the last of two.
	if t.claims.Issuer != verified.Issuer || t.claims.Subject != verified.Subject {
		return nil, errors.New("oidc: id token: its claims can be read in two ways")
	}
	if err := t.claims.check(&c.cfg, time.Now()); err != nil {
		return nil, err
	}
	return t, nil
}

// signature remembers why a signature could not be verified.
type signature struct {
	keys gooidc.KeySet
	err  error
}

func (s *signature) VerifySignature(ctx context.Context, raw string) (payload []byte, err error) {
	payload, s.err = s.keys.VerifySignature(ctx, raw)
	return payload, s.err
}

// checkHeader refuses tokens of another type (CB-16, BC-05) and such as bring, or
// point at, the key to verify them by (CB-10). A token may leave its type out.
func checkHeader(raw string, types ...string) error {
	encoded, _, _ := strings.Cut(raw, ".")
	decoded, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return flaw("not a JWT")
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(decoded, &header); err != nil {
		return flaw("not a JWT")
	}
	for _, name := range []string{"jwk", "jku", "x5u", "x5c"} {
		if _, ok := header[name]; ok {
			return flaw("its header has " + name)
		}
	}
	raws, ok := header["typ"]
	if !ok {
		return nil
	}
	var typ string
	if err := json.Unmarshal(raws, &typ); err != nil || !slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, typ) }) {
		return flaw("it is a token of another type")
	}
	return nil
}

// flaw says what is wrong with a token or with a request that brings one, in words
// of ours alone: nothing of either is in it.
type flaw string

func (e flaw) Error() string { return string(e) }

// decodeClaims reads the claims of a token without verifying anything.
func decodeClaims(raw string) (claims idClaims, payload json.RawMessage, err error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return claims, nil, errors.New("oidc: id token: not a JWT")
	}
	if payload, err = base64.RawURLEncoding.DecodeString(parts[1]); err != nil {
		return claims, nil, errors.New("oidc: id token: not a JWT")
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return claims, nil, fmt.Errorf("oidc: id token: claims: %w", err)
	}
	return claims, payload, nil
}

// check is Core 1.0, section 3.1.3.7, steps 3 to 5, 9 and 10. Issuer and client
// are checked already.
func (c *idClaims) check(cfg *Config, now time.Time) error {
	var err error
	switch {
	case c.Subject == "":
		err = flaw("no sub")
	case c.AuthorizedParty != "" && c.AuthorizedParty != cfg.ClientID:
		err = flaw("azp is another client")
	// Step 4: who of several got it has to be said, as the others could have.
	case c.AuthorizedParty == "" && len(c.Audience) > 1:
		err = flaw("it has several audiences and no azp")
	case c.Expiry == nil:
		err = flaw("exp is missing")
	default:
		err = checkUse(&c.Claims, append([]string{cfg.ClientID}, cfg.Audiences...), cfg.ClockSkew, now)
	}
	if err != nil {
		return fmt.Errorf("oidc: id token: %w", err)
	}
	return nil
}

// checkUse checks that a token is for us, the first of the audiences, and for now.
// Whether it may do without exp is the caller's to say.
func checkUse(c *jwt.Claims, audiences []string, skew time.Duration, now time.Time) error {
	switch {
	// We trust no other audience than configured: a token that is also somebody
	// else's could have been got by them (CB-11).
	case !slices.Contains(c.Audience, audiences[0]) || slices.ContainsFunc(c.Audience, func(aud string) bool { return !slices.Contains(audiences, aud) }):
		return flaw("it has other audiences")
	case c.IssuedAt == nil:
		return flaw("iat is missing")
	case c.Expiry != nil && !now.Add(-skew).Before(c.Expiry.Time()):
		return fmt.Errorf("%w at %v; is a clock wrong?", flaw("expired"), c.Expiry.Time().UTC())
	case c.IssuedAt.Time().After(now.Add(skew)):
		return fmt.Errorf("%w, at %v; is a clock wrong?", flaw("issued in the future"), c.IssuedAt.Time().UTC())
	case c.NotBefore != nil && c.NotBefore.Time().After(now.Add(skew)):
		return fmt.Errorf("%w, but from %v on; is a clock wrong?", flaw("not valid yet"), c.NotBefore.Time().UTC())
	}
	return nil
}

// verifyLogin checks the ID token of a code exchange against what the flow sent.
// Until it returns, nothing of the answer may be used (CB-13).
func (c *Client) verifyLogin(ctx context.Context, raw, accessToken string, f *flow) (*idToken, error) {
	if raw == "" {
		return nil, errors.New("oidc: id token: the answer has none")
	}
	t, err := c.verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	if !same(t.claims.Nonce, f.Nonce) {
		return nil, errors.New("oidc: id token: the nonce is another")
	}
	// Core 1.0, section 3.1.3.8: optional in this flow, so only if it is there.
	if t.verified.AccessTokenHash != "" {
		if err := t.verified.VerifyAccessToken(accessToken); err != nil {
			return nil, errors.New("oidc: id token: at_hash is of another access token")
		}
	}
	if f.MaxAge == nil {
		return t, nil
	}
	// Step 12, from when the flow began: how long the user then took to consent
	// does not matter.
	if t.claims.AuthTime == nil {
		return nil, errors.New("oidc: id token: max_age was sent, and auth_time is missing")
	}
	oldest := f.began().Add(-time.Duration(*f.MaxAge) * time.Second).Add(-c.cfg.ClockSkew)
	if t.claims.AuthTime.Time().Before(oldest.Truncate(time.Second)) {
		return nil, errors.New("oidc: id token: the user authenticated too long ago")
	}
	return t, nil
}

// Confirm checks the ID token of a refresh answer against the former one
// (Core 1.0, section 12.2).
//
// session.ErrForeign: the provider did sign it, and not for this session. Any
// other error: nobody knows whose it is, and so it ends nothing (DESIGN.md,
// promise 3), or its time is over: some providers send the login's once more.
func (c *Client) Confirm(ctx context.Context, raw, former string) error {
	before, _, err := decodeClaims(former)
	if err != nil {
		return err
	}
	if err := checkHeader(raw, "JWT"); err != nil {
		return fmt.Errorf("oidc: id token: %w", err)
	}
	if _, err := c.keys.VerifySignature(ctx, raw); err != nil {
		return err
	}
	now, _, err := decodeClaims(raw)
	if err != nil {
		return err
	}
	if err := now.continues(&before); err != nil {
		return fmt.Errorf("%w: %w", session.ErrForeign, err)
	}
	_, err = c.verify(ctx, raw)
	return err
}

func (c *idClaims) continues(former *idClaims) error {
	switch {
	case c.Issuer != former.Issuer:
		return errors.New("oidc: id token: iss changed at refresh")
	case c.Subject != former.Subject:
		return errors.New("oidc: id token: sub changed at refresh")
	case !slices.Equal(slices.Sorted(slices.Values(c.Audience)), slices.Sorted(slices.Values(former.Audience))):
		return errors.New("oidc: id token: aud changed at refresh")
	case c.AuthorizedParty != former.AuthorizedParty:
		return errors.New("oidc: id token: azp changed at refresh")
	case c.AuthTime != nil && former.AuthTime != nil && *c.AuthTime != *former.AuthTime:
		return errors.New("oidc: id token: auth_time changed at refresh")
	case c.Nonce != "" && !same(c.Nonce, former.Nonce):
		return errors.New("oidc: id token: nonce changed at refresh")
	}
	return nil
}

// same compares in constant time. Nothing is the same as an empty string.
func same(got, want string) bool {
	return want != "" && subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1
}
