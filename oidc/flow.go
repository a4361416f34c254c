package oidc

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// flow is one login under way. It lives in a sealed cookie of the browser that
// began it: nothing is kept here (LOG-22), many tabs can log in at once (LOG-09),
// and no other browser can finish it (CB-02).
type flow struct {
	State     string `json:"s"`
	Nonce     string `json:"n"`
	Verifier  string `json:"v"` // RFC 7636
	ReturnURL string `json:"r"`
	Began     int64  `json:"b"` // in milliseconds
	// MaxAge and PromptNone are what was asked of the provider.
	MaxAge     *int64 `json:"m,omitempty"`
	PromptNone bool   `json:"p,omitempty"`
	// Former is the key of the session the browser had: the callback comes from
	// the provider's form, where a Strict cookie is not sent along.
	Former []byte `json:"f,omitempty"`
	// Logins counts the logins just before of which no cookie came back.
	Logins int `json:"l,omitempty"`
}

const (
	flowLife = 10 * time.Minute
	maxFlows = 8
	// A request can bring any number of cookies named like flows. Only so many are
	// opened, and so many cleared in one answer (CVE-2024-24814).
	flowsOpened  = 32
	flowsCleared = 2
)

// newFlow draws what must be unguessable (LOG-03, LOG-04).
func newFlow(returnURL string) *flow {
	return &flow{
		State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(),
		ReturnURL: returnURL, Began: time.Now().UnixMilli(),
	}
}

func (f *flow) began() time.Time { return time.UnixMilli(f.Began) }

const flowPrefix = "flow-"

// flowSuffix names the cookie of a flow by its state, without telling it.
func flowSuffix(state string) string {
	sum := sha256.Sum256([]byte(state))
	return flowPrefix + hex.EncodeToString(sum[:8])
}

// keepFlow gives the browser the flow's cookie, and takes old ones away.
func (e *Endpoints) keepFlow(w http.ResponseWriter, r *http.Request, f *flow) error {
	// Unlike Marshal it does not make six bytes of an & in returnUrl, or the cookie
	// might be longer than browsers keep.
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(f); err != nil {
		return err
	}
	e.makeRoom(w, r)
	http.SetCookie(w, e.seal(flowKind, flowSuffix(f.State), b.Bytes(), flowLife))
	return nil
}

// makeRoom clears flow cookies that are no good and, of those that are, the
// oldest, so that they do not pile up until requests are too large (pains 14).
func (e *Endpoints) makeRoom(w http.ResponseWriter, r *http.Request) {
	type kept struct {
		suffix string
		began  int64
	}
	var live []kept
	var gone []string
	seen := 0
	for _, c := range r.Cookies() {
		suffix, ok := strings.CutPrefix(c.Name, e.app.CookieName()+"-")
		if !ok || !strings.HasPrefix(suffix, flowPrefix) {
			continue
		}
		if seen++; seen > flowsOpened {
			break
		}
		if f := e.openFlow(suffix, c.Value); f != nil {
			live = append(live, kept{suffix, f.Began})
		} else {
			gone = append(gone, suffix)
		}
	}
	slices.SortFunc(live, func(a, b kept) int { return cmp.Compare(a.began, b.began) })
	for i := 0; i < len(live)-(maxFlows-1); i++ {
		gone = append(gone, live[i].suffix)
	}
	for _, suffix := range gone[:min(len(gone), flowsCleared)] {
		http.SetCookie(w, e.app.Cookie(suffix, "", -1))
	}
}

func (e *Endpoints) openFlow(suffix, value string) *flow {
	b, ok := e.open(flowKind, suffix, value)
	if !ok {
		return nil
	}
	var f flow
	if json.NewDecoder(bytes.NewReader(b)).Decode(&f) != nil {
		return nil
	}
	return &f
}

// takeFlow returns the flow a callback belongs to, nil if this browser has none
// for its state. Whatever becomes of the callback, the flow is over.
func (e *Endpoints) takeFlow(w http.ResponseWriter, r *http.Request, state string) *flow {
	if state == "" {
		return nil
	}
	suffix := flowSuffix(state)
	cookies := r.CookiesNamed(e.app.CookieName() + "-" + suffix)
	if len(cookies) == 0 {
		return nil
	}
	http.SetCookie(w, e.app.Cookie(suffix, "", -1))
	f := e.openFlow(suffix, cookies[0].Value)
	if f == nil || !same(state, f.State) {
		return nil
	}
	return f
}
