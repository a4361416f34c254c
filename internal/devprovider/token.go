package devprovider

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// token is the token endpoint (RFC 6749, 3.2).
func (p *Provider) token(x *exchange) answer {
	client, failure := p.authenticate(x)
	if failure != nil {
		return answer{failure: failure}
	}
	switch x.r.PostForm.Get("grant_type") {
	case "authorization_code":
		return p.redeem(x, client)
	case "refresh_token":
		return p.refresh(x, client)
	}
	return failed("unsupported_grant_type", "only authorization_code and refresh_token")
}

// redeem turns a code into tokens, once (RFC 6749, 4.1.3; RFC 7636, 4.6).
func (p *Provider) redeem(x *exchange, client *Client) answer {
	g, c, failure := p.redeemCode(x, client)
	if failure != nil {
		return answer{failure: failure}
	}
	var refresh string
	if slices.Contains(g.scope, "offline_access") {
		refresh = p.newRefreshToken(g)
	}
	return p.tokens200(g, refresh, c.nonce, x)
}

func (p *Provider) redeemCode(x *exchange, client *Client) (*grant, *code, *oauthError) {
	form := x.r.PostForm
	invalid := func(why string) (*grant, *code, *oauthError) {
		return nil, nil, &oauthError{code: "invalid_grant", description: why}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.codes[form.Get("code")]
	if c == nil || c.client != client {
		return invalid("unknown code")
	}
	x.event.Sub = c.session.user.Sub
	if c.spent {
		// RFC 6749, 4.1.2: who knows a spent code may know its tokens.
		if c.grant != nil {
			c.grant.revoked = true
			x.event.Family, x.event.Reuse = c.grant.id, true
		}
		return invalid("spent code")
	}
	c.spent = true
	switch {
	case p.cfg.Now().After(c.expires):
		return invalid("expired code")
	case form.Get("redirect_uri") != c.redirectURI:
		return invalid("redirect_uri differs from the authorization request's")
	case !verified(form.Get("code_verifier"), c.challenge):
		return invalid("code_verifier does not match")
	}
	c.grant = &grant{
		id:       fmt.Sprintf("grant-%d", len(p.grants)+1),
		client:   client,
		user:     c.session.user,
		sid:      c.session.sid,
		scope:    c.scope,
		authTime: c.authTime,
	}
	p.grants = append(p.grants, c.grant)
	x.event.Family = c.grant.id
	return c.grant, c, nil
}

// verified checks an S256 challenge and the verifier's length (RFC 7636, 4.1).
func verified(verifier, challenge string) bool {
	sum := sha256.Sum256([]byte(verifier))
	return len(verifier) >= 43 && len(verifier) <= 128 &&
		base64.RawURLEncoding.EncodeToString(sum[:]) == challenge
}

// refresh takes a refresh token and answers with the next one.
func (p *Provider) refresh(x *exchange, client *Client) answer {
	g, failure := p.spend(x, client)
	if failure != nil {
		return answer{failure: failure}
	}
	next := x.r.PostForm.Get("refresh_token")
	if !x.fault.NoRotation {
		next = p.newRefreshToken(g)
	}
	return p.tokens200(g, next, "", x)
}

// spend takes a refresh token out of use. A spent one is a sign of theft: thief
// or owner, the provider cannot know who asks, so the whole family ends (RFC
// 9700, 4.14.2).
func (p *Provider) spend(x *exchange, client *Client) (*grant, *oauthError) {
	form := x.r.PostForm
	invalid := func(why string) (*grant, *oauthError) {
		return nil, &oauthError{code: "invalid_grant", description: why}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.refreshes[form.Get("refresh_token")]
	if t == nil || t.grant.client != client {
		return invalid("unknown refresh token")
	}
	g := t.grant
	x.event.Family, x.event.Sub = g.id, g.user.Sub
	switch {
	case t.spent:
		g.revoked, x.event.Reuse = true, true
		return invalid("spent refresh token: all tokens of its family are revoked")
	case g.revoked:
		return invalid("revoked")
	case p.cfg.Now().After(t.expires):
		return invalid("expired refresh token")
	}
	for _, scope := range strings.Fields(form.Get("scope")) {
		if !slices.Contains(g.scope, scope) {
			return nil, &oauthError{code: "invalid_scope", description: "more than was granted"}
		}
	}
	t.spent = !x.fault.NoRotation
	return g, nil
}

func (p *Provider) newRefreshToken(g *grant) string {
	value := "rt." + rand.Text()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refreshes[value] = &refreshToken{grant: g, expires: p.cfg.Now().Add(p.cfg.RefreshTokenTTL)}
	return value
}

func (p *Provider) tokens200(g *grant, refresh, nonce string, x *exchange) answer {
	body, err := p.mint(g, refresh, nonce, &x.fault)
	if err != nil {
		return answer{failure: &oauthError{code: "server_error", description: err.Error(), status: 500}}
	}
	return answer{json: body}
}
