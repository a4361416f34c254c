package devprovider

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// logoutEvent is what makes a token a logout token (Back-Channel Logout 1.0, 2.4).
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

const (
	logoutTokenTTL = 2 * time.Minute // Back-Channel Logout 1.0, 2.4: short, at most two minutes
	logoutPatience = 5 * time.Second // with a client's answer
)

// SentLogout is a logout token and what the client said to it.
type SentLogout struct {
	Time     time.Time
	ClientID string
	URI      string
	Token    string
	Sub, SID string // as in the token, unless a fault edited it

	Status int // of the client's answer; 0: none came
	Header http.Header
	Body   string
	Err    error // why none came
}

// LogoutTokens returns every logout token that was sent and answered, or given
// up, oldest first.
func (p *Provider) LogoutTokens() []SentLogout {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.logouts)
}

// Logout logs a user out of everything here, as an administrator does: by sub
// alone, but for a client whose registration asks for the sid. It returns when
// every client has answered.
func (p *Provider) Logout(sub string) []SentLogout {
	return p.tell(p.end(func(owner *User, _ string) bool { return owner.Sub == sub }))
}

// LogoutSession ends one session of a browser here, and tells every client that
// the browser logged in to by it. It returns when every client has answered.
func (p *Provider) LogoutSession(sid string) []SentLogout {
	return p.tell(p.end(func(_ *User, s string) bool { return s == sid }))
}

// departure is one client losing one session.
type departure struct {
	client *Client
	user   *User
	sid    string
}

// end ends sessions with their codes and grants. It returns what clients have to
// hear of, each once, whether or not its tokens were still good: revoking them
// says nothing about the client's own session.
func (p *Provider) end(which func(owner *User, sid string) bool) []departure {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.sessions, func(_ string, s *session) bool { return which(s.user, s.sid) })
	maps.DeleteFunc(p.codes, func(_ string, c *code) bool { return !c.spent && which(c.session.user, c.session.sid) })
	var left []departure
	for _, g := range p.grants {
		if g.left || !which(g.user, g.sid) {
			continue
		}
		g.revoked, g.left = true, true
		if d := (departure{g.client, g.user, g.sid}); !slices.Contains(left, d) {
			left = append(left, d)
		}
	}
	return left
}

// tell posts logout tokens, all at once, and returns with the last answer. The
// client that sent the user to log out hears of it like any other.
func (p *Provider) tell(left []departure) []SentLogout {
	var due []SentLogout
	for _, d := range left {
		s := SentLogout{ClientID: d.client.ID, Sub: d.user.Sub}
		if d.client.BackChannelSessionRequired {
			s.SID = d.sid
		}
		known := slices.ContainsFunc(due, func(o SentLogout) bool { return o.ClientID == s.ClientID && o.SID == s.SID })
		if d.client.BackChannelLogoutURI != "" && !known {
			due = append(due, s)
		}
	}
	var all sync.WaitGroup
	for i := range due {
		all.Go(func() { due[i] = p.SendLogout(due[i].ClientID, due[i].Sub, due[i].SID) })
	}
	all.Wait()
	return due
}

// SendLogout mints a logout token and posts it to a client. Nothing ends here:
// what is left to see is what the client makes of it. An empty sub or sid is
// left out of the token.
func (p *Provider) SendLogout(clientID, sub, sid string) SentLogout {
	s := SentLogout{Time: p.cfg.Now(), ClientID: clientID, Sub: sub, SID: sid}
	client := p.client(clientID)
	if client == nil || client.BackChannelLogoutURI == "" {
		s.Err = errors.New("devprovider: no client with a BackChannelLogoutURI")
		return s
	}
	s.URI = client.BackChannelLogoutURI
	f := p.arrive(BackChannel)
	if s.Token, s.Err = p.logoutToken(clientID, sub, sid, &f); s.Err == nil {
		f.hold()
		s.Err = errCut
		if !f.Cut {
			s.post()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.logouts = append(p.logouts, s)
	return s
}

var errCut = errors.New("devprovider: a fault kept the logout token from being sent")

// hold waits as the fault tells.
func (f *Fault) hold() {
	if f.Wait != nil {
		f.Wait()
	}
	time.Sleep(f.Delay)
}

// LogoutToken mints a logout token for whoever wants to post it in a way of
// their own. Faults of BackChannel spoil it, and count.
func (p *Provider) LogoutToken(clientID, sub, sid string) (string, error) {
	f := p.arrive(BackChannel)
	return p.logoutToken(clientID, sub, sid, &f)
}

// logoutToken makes a logout token by Back-Channel Logout 1.0, 2.4, and spoils it
// as told.
func (p *Provider) logoutToken(clientID, sub, sid string, f *Fault) (string, error) {
	now := p.cfg.Now()
	claims := map[string]any{
		"iss":    p.cfg.Issuer,
		"aud":    clientID,
		"iat":    now.Unix(),
		"exp":    now.Add(logoutTokenTTL).Unix(),
		"jti":    rand.Text(),
		"events": map[string]any{logoutEvent: map[string]any{}},
	}
	for name, value := range map[string]string{"sub": sub, "sid": sid} {
		if value != "" {
			claims[name] = value
		}
	}
	token, err := p.mintJWT("logout+jwt", claims, f)
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens = append(p.tokens, Minted{Kind: "logout", Value: token, Sub: sub, SID: sid})
	return token, nil
}

// answerLimit is more than any answer to a logout token needs.
const answerLimit = 64 << 10

// post sends the token and takes the answer down. Its time is its own: a browser
// that hangs up does not keep clients from hearing of the logout.
func (s *SentLogout) post() {
	ctx, cancel := context.WithTimeout(context.Background(), logoutPatience)
	defer cancel()
	form := url.Values{"logout_token": {s.Token}}.Encode()
	req, err := http.NewRequestWithContext(ctx, "POST", s.URI, strings.NewReader(form))
	if err != nil {
		s.Err = fmt.Errorf("devprovider: logout token for %s: %w", s.ClientID, err)
		return
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Close = true                                 // a client that was restarted meanwhile is no broken connection
	res, err := http.DefaultTransport.RoundTrip(req) // which follows no redirect
	if err != nil {
		s.Err = fmt.Errorf("devprovider: logout token for %s: %w", s.ClientID, err)
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	s.Status, s.Header, s.Body, s.Err = res.StatusCode, res.Header, string(body), err
}
