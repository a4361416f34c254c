package devprovider

import (
	"maps"
	"net/url"
	"slices"
	"time"
)

// Event is one request and what the provider made of it. It is recorded before
// the answer leaves, so whoever has the answer finds the event.
type Event struct {
	Time       time.Time
	Endpoint   Endpoint
	Method     string
	Params     url.Values // query and form together
	ClientID   string     // as authenticated, or as claimed in an authorization request
	AuthMethod string     // how the client authenticated
	Sub        string
	Family     string // the grant whose refresh or access token was presented or issued
	Reuse      bool   // a spent refresh token or code: the family was revoked
	Status     int    // of the provider's answer, or of a fault's in its place; 0: connection cut before anything happened
	Error      string // OAuth error code
}

// Minted is a token as it was made.
type Minted struct {
	Kind   string // "access", "refresh", "id" or "logout"
	Value  string
	Family string // none for a logout token
	Sub    string
	SID    string
}

// Stats counts.
type Stats struct {
	Requests  map[Endpoint]int // as they arrive, before any fault; Token is the sum of Code and Refresh
	Refreshed int              // refresh tokens taken and answered with new tokens
	Reuses    []string         // the family of each reuse that was detected
	Sessions  int              // sessions of browsers with the provider
	Grants    int              // families that are not revoked
}

// Stats returns the counts of this moment.
func (p *Provider) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Requests: maps.Clone(p.arrived), Sessions: len(p.sessions)}
	s.Requests[Token] = s.Requests[Code] + s.Requests[Refresh]
	for _, e := range p.events {
		if e.Endpoint == Refresh && e.Status == 200 && e.Family != "" {
			s.Refreshed++
		}
		if e.Reuse {
			s.Reuses = append(s.Reuses, e.Family)
		}
	}
	for _, g := range p.grants {
		if !g.revoked {
			s.Grants++
		}
	}
	return s
}

// Events returns what happened at the endpoints, or at every one if none is
// given, oldest first.
func (p *Provider) Events(at ...Endpoint) []Event {
	wanted := expand(at)
	p.mu.Lock()
	defer p.mu.Unlock()
	var events []Event
	for _, e := range p.events {
		if slices.Contains(wanted, e.Endpoint) {
			events = append(events, e)
		}
	}
	return events
}

// Tokens returns every token ever minted, oldest first, for a search through
// all that must hold none of them.
func (p *Provider) Tokens() []Minted {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tokens)
}

func (p *Provider) record(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
}

// RevokeUser ends all sessions and grants of a user, as an administrator does, and
// tells no client: the next refresh is answered with invalid_grant.
func (p *Provider) RevokeUser(sub string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.sessions, func(_ string, s *session) bool { return s.user.Sub == sub })
	for _, g := range p.grants {
		if g.user.Sub == sub {
			g.revoked = true
		}
	}
}
