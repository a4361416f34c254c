package devprovider

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4/jwt"
)

// userinfo answers for a bearer token that is good and not revoked (OpenID
// Connect Core, 5.3).
func (p *Provider) userinfo(x *exchange) answer {
	token, _ := strings.CutPrefix(x.r.Header.Get("Authorization"), "Bearer ")
	var claims jwt.Claims
	if p.own(token, &claims) != nil || claims.Expiry == nil || p.cfg.Now().After(claims.Expiry.Time()) {
		return invalidToken()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.accesses[claims.ID]
	if g == nil || g.revoked {
		return invalidToken()
	}
	x.event.Family, x.event.Sub = g.id, g.user.Sub
	return answer{json: userClaims(g)}
}

func invalidToken() answer {
	return answer{failure: &oauthError{
		code: "invalid_token", status: http.StatusUnauthorized,
		challenge: `Bearer error="invalid_token"`,
	}}
}

// revocation takes back a refresh token with its family, or one access token. A
// token that is unknown is as good as revoked (RFC 7009, 2.2).
func (p *Provider) revocation(x *exchange) answer {
	client, failure := p.authenticate(x)
	if failure != nil {
		return answer{failure: failure}
	}
	token := x.r.PostForm.Get("token")
	if token == "" {
		return failed("invalid_request", "no token")
	}
	var access jwt.Claims
	_ = p.own(token, &access) // what is no token of ours has no id
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.accesses[access.ID]
	refresh := p.refreshes[token]
	if refresh != nil {
		g = refresh.grant
	}
	if g == nil {
		return answer{json: map[string]any{}}
	}
	if g.client != client {
		return failed("invalid_grant", "another client's token")
	}
	x.event.Family, x.event.Sub = g.id, g.user.Sub
	if refresh != nil {
		g.revoked = true
	} else {
		delete(p.accesses, access.ID)
	}
	return answer{json: map[string]any{}}
}

// endSession is RP-Initiated Logout 1.0: it ends the provider's session and all
// its grants, and tells the clients. It asks nobody whom a client sends: a
// development provider's users are impatient.
func (p *Provider) endSession(x *exchange) answer {
	params := x.r.Form
	if name := repeated(params); name != "" {
		return refused("The parameter " + name + " is there twice.")
	}
	if len(params) == 0 {
		return p.ownLogout(x)
	}
	client, sid, problem := p.leaving(params)
	if problem != "" {
		return refused(problem)
	}
	x.event.ClientID = client.ID
	target := params.Get("post_logout_redirect_uri")
	if target != "" && !slices.Contains(client.PostLogoutRedirectURIs, target) {
		return refused("The post_logout_redirect_uri is not registered for this client.")
	}
	if state := params.Get("state"); state != "" && target != "" {
		target = addQuery(target, url.Values{"state": {state}})
	}
	return p.signOut(x, sid, target)
}

// ownLogout is for somebody who came by themselves: a page with a button. Another
// site must not press it.
func (p *Provider) ownLogout(x *exchange) answer {
	s := p.session(x.r)
	if s == nil || x.r.Method == http.MethodGet {
		return answer{page: p.logoutPage(s)}
	}
	if err := http.NewCrossOriginProtection().Check(x.r); err != nil {
		return refused("This form was not filled in here.")
	}
	return p.signOut(x, s.sid, "")
}

// signOut ends a session, the browser's own if no ID token named one, and sends
// the browser on to target, if there is one. A page with frames comes between.
func (p *Provider) signOut(x *exchange, sid, target string) answer {
	a := answer{header: http.Header{}}
	if s := p.session(x.r); s != nil && (sid == "" || sid == s.sid) {
		sid = s.sid
		expired := &http.Cookie{Name: p.cookie, Path: p.path + "/", MaxAge: -1}
		a.header.Add("Set-Cookie", expired.String())
	}
	left := p.end(func(_ *User, s string) bool { return s == sid })
	if len(left) > 0 {
		x.event.Sub = left[0].user.Sub
	}
	told := p.tell(left)
	frames := p.frames(left)
	if target != "" && len(frames) == 0 {
		a.location = target
		return a
	}
	a.page = p.signedOutPage(told, frames, target)
	return a
}

// frames are the URLs that log out at each client by Front-Channel Logout 1.0, 2.
func (p *Provider) frames(left []departure) []string {
	var frames []string
	for _, d := range left {
		if uri := d.client.FrontChannelLogoutURI; uri != "" {
			frames = append(frames, addQuery(uri, url.Values{"iss": {p.cfg.Issuer}, "sid": {d.sid}}))
		}
	}
	return frames
}

// leaving finds out which client sends its user to log out, and which session
// that is, if an ID token says so.
func (p *Provider) leaving(params url.Values) (client *Client, sid, problem string) {
	client = p.client(params.Get("client_id"))
	if client == nil && params.Has("client_id") {
		return nil, "", "Unknown client."
	}
	if hint := params.Get("id_token_hint"); hint != "" {
		var claims struct {
			jwt.Claims
			SID string `json:"sid"`
		}
		if p.own(hint, &claims) != nil || len(claims.Audience) != 1 {
			return nil, "", "The id_token_hint is not an ID token of ours."
		}
		audience := p.client(claims.Audience[0])
		if audience == nil || (client != nil && client != audience) {
			return nil, "", "The id_token_hint is another client's."
		}
		return audience, claims.SID, ""
	}
	if client == nil {
		return nil, "", "Neither id_token_hint nor client_id."
	}
	return client, "", ""
}

// addQuery adds parameters to a URL that may have some.
func addQuery(target string, params url.Values) string {
	separator := "?"
	if strings.Contains(target, "?") {
		separator = "&"
	}
	return target + separator + params.Encode()
}
