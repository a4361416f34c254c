package devprovider

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Endpoint names an endpoint for faults and records.
type Endpoint string

// The endpoints. Token stands for Code and Refresh, which tell the two uses of
// the token endpoint apart; Callback is the redirect that brings the browser
// back to the client, where only a fault's Error and Edit work; BackChannel is a
// logout token for a client, which Cut keeps from being sent, Wait and Delay hold
// back, and the fields that spoil ID tokens spoil.
const (
	Discovery  Endpoint = "discovery"
	JWKS       Endpoint = "jwks"
	Authorize  Endpoint = "authorize"
	Login      Endpoint = "login"
	Callback   Endpoint = "callback"
	Token      Endpoint = "token"
	Code       Endpoint = "token/code"
	Refresh    Endpoint = "token/refresh"
	UserInfo   Endpoint = "userinfo"
	Revocation Endpoint = "revocation"
	EndSession Endpoint = "end_session"

	BackChannel Endpoint = "backchannel"
)

var endpoints = []Endpoint{
	Discovery, JWKS, Authorize, Login, Callback, Code, Refresh, UserInfo, Revocation, EndSession, BackChannel,
}

// Fault is one way of misbehaving; its zero value is to behave. Fields combine.
//
// A fault strikes before the request is looked at, so that nothing has happened.
// With After it strikes when everything has happened: with Cut that is the
// provider that rotated a refresh token and whose answer got lost.
type Fault struct {
	Times int  // how many requests it meets; 0: all until Heal
	After bool // strike after the state change

	Wait  func()        // is called, and waited for
	Delay time.Duration // a client that hangs up meanwhile is one whose request nobody looked at, unless After
	Cut   bool          // cut the connection instead of an answer

	// These answer in the provider's place.
	Status      int    // default 400 if Error is set, else 200
	RetryAfter  string // header Retry-After
	Location    string // header Location
	Error       string // an OAuth error as JSON; at Callback as a parameter
	Body        string // a body that is no OAuth answer
	ContentType string // of Body; default text/html
	Huge        int64  // a JSON answer of about that many bytes

	// These spoil a genuine answer.
	Edit func(map[string]any) // change the members of a JSON answer, or the parameters of Callback
	Drip time.Duration        // pause after each byte
	Half bool                 // cut the connection in the middle of the body

	NoRotation bool // the old refresh token stays good and is answered again

	// These spoil the ID token of a token request, or a logout token.
	Claims       func(map[string]any) // change the claims
	Header       func(map[string]any) // change the header; what signs is Alg's choice
	Typ          string               // typ of the header; default JWT, or logout+jwt
	Alg          string               // "none", or "HS256" with the public key as the secret
	BadSignature bool
}

// Without is an Edit, Claims or Header that removes members.
func Without(names ...string) func(map[string]any) {
	return func(m map[string]any) {
		for _, n := range names {
			delete(m, n)
		}
	}
}

// With is an Edit, Claims or Header that sets a member.
func With(name string, value any) func(map[string]any) {
	return func(m map[string]any) { m[name] = value }
}

// Fail lets a fault happen at the endpoints, or at every one if none is given.
// Faults of one endpoint queue up: the first strikes until its Times are over.
func (p *Provider) Fail(f Fault, at ...Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range expand(at) {
		queued := f
		p.faults[e] = append(p.faults[e], &queued)
	}
}

// Heal takes back all faults of the endpoints, or of every one if none is given.
func (p *Provider) Heal(at ...Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range expand(at) {
		delete(p.faults, e)
	}
}

func expand(at []Endpoint) []Endpoint {
	if len(at) == 0 {
		return endpoints
	}
	var all []Endpoint
	for _, e := range at {
		if e == Token {
			all = append(all, Code, Refresh)
			continue
		}
		all = append(all, e)
	}
	return all
}

// arrive counts a request and returns the fault it meets.
func (p *Provider) arrive(e Endpoint) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arrived[e]++
	queue := p.faults[e]
	if len(queue) == 0 {
		return Fault{}
	}
	f := *queue[0]
	if queue[0].Times == 1 {
		p.faults[e] = queue[1:]
	} else if queue[0].Times > 1 {
		queue[0].Times--
	}
	return f
}

// strike does what the fault does to any request. It reports whether that was
// the answer.
func (f *Fault) strike(w http.ResponseWriter, r *http.Request) bool {
	if f.Wait != nil {
		f.Wait()
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if f.Cut {
		panic(http.ErrAbortHandler)
	}
	if !f.answers() {
		return false
	}
	f.impersonate(w)
	return true
}

// answers says whether the fault leaves no room for a genuine answer.
func (f *Fault) answers() bool {
	return f.Cut || f.Status != 0 || f.Error != "" || f.Body != "" || f.Huge != 0 || f.Location != ""
}

// status is that of the answer in the provider's place; 0 if there is none.
func (f *Fault) status() int {
	switch {
	case f.Cut:
		return 0
	case f.Status != 0:
		return f.Status
	case f.Error != "":
		return http.StatusBadRequest
	}
	return http.StatusOK
}

// impersonate answers in the provider's place.
func (f *Fault) impersonate(w http.ResponseWriter) {
	contentType, body := cmp.Or(f.ContentType, "text/html"), f.Body
	if f.Error != "" {
		contentType, body = "application/json", fmt.Sprintf(`{"error":%q}`, f.Error)
	}
	if f.Huge > 0 {
		contentType = "application/json"
	}
	w.Header().Set("Content-Type", contentType)
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	if f.Location != "" {
		w.Header().Set("Location", f.Location)
	}
	w.WriteHeader(f.status())
	if f.Huge > 0 {
		f.writeHuge(w)
		return
	}
	f.write(w, []byte(body))
}

// writeHuge writes JSON that is right but for its size. The reader may leave.
func (f *Fault) writeHuge(w io.Writer) {
	io.WriteString(w, `{"access_token":"`)
	chunk := []byte(strings.Repeat("a", 1<<14))
	for left := f.Huge; left > 0; left -= int64(len(chunk)) {
		if _, err := w.Write(chunk[:min(left, int64(len(chunk)))]); err != nil {
			return
		}
	}
	io.WriteString(w, `","token_type":"Bearer"}`)
}

// write writes a body as slowly and as incompletely as the fault has it.
func (f *Fault) write(w http.ResponseWriter, body []byte) {
	if f.Half {
		body = body[:len(body)/2]
	}
	if f.Drip == 0 {
		w.Write(body)
	} else {
		drip(w, body, f.Drip)
	}
	if f.Half {
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func drip(w http.ResponseWriter, body []byte, pause time.Duration) {
	for i := range body {
		if _, err := w.Write(body[i : i+1]); err != nil {
			return
		}
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		time.Sleep(pause)
	}
}
