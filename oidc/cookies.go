package oidc

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"
)

// What our short-lived cookies hold. Each kind has a sealing key of its own, so
// that none can pass for another.
const (
	flowKind        = "flow"
	loginsKind      = "logins"
	logoutKind      = "logout"
	logoutStateKind = "logout-state"
)

// seal makes a cookie that its browser can neither read nor change, and that
// opens under its own name, on this origin, for as long as life.
func (e *Endpoints) seal(kind, suffix string, payload []byte, life time.Duration) *http.Cookie {
	plain := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(life).UnixMilli()))
	return e.app.Cookie(suffix, e.app.Keys().Seal(kind, e.bound(suffix), append(plain, payload...)), life)
}

// open undoes seal.
func (e *Endpoints) open(kind, suffix, value string) (payload []byte, ok bool) {
	plain, err := e.app.Keys().Open(kind, e.bound(suffix), value)
	if err != nil || len(plain) < 8 {
		return nil, false
	}
	until := time.UnixMilli(int64(binary.BigEndian.Uint64(plain)))
	return plain[8:], time.Now().Before(until)
}

func (e *Endpoints) bound(suffix string) string {
	return e.app.CookieName() + "-" + suffix + " " + e.client.cfg.Origin
}

// presented returns what a cookie named after its kind holds.
func (e *Endpoints) presented(r *http.Request, kind string) (payload []byte, ok bool) {
	c, err := r.Cookie(e.app.CookieName() + "-" + kind)
	if err != nil {
		return nil, false
	}
	return e.open(kind, kind, c.Value)
}

// clear deletes cookies named after their kinds, those that were presented.
func (e *Endpoints) clear(w http.ResponseWriter, r *http.Request, kinds ...string) {
	for _, kind := range kinds {
		if _, err := r.Cookie(e.app.CookieName() + "-" + kind); err == nil {
			http.SetCookie(w, e.app.Cookie(kind, "", -1))
		}
	}
}

// The login-loop guard: a browser that does not keep the session cookie would be
// sent from the app to the provider and back for ever (pains 21).
const (
	loopWindow = time.Minute
	loopLogins = 3
)

// loginsBefore is how many logins the browser finished in the last minute.
func (e *Endpoints) loginsBefore(r *http.Request) int {
	b, _ := e.presented(r, loginsKind)
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return 0
	}
	return n
}

func (e *Endpoints) countLogin(w http.ResponseWriter, n int) {
	http.SetCookie(w, e.seal(loginsKind, loginsKind, strconv.AppendInt(nil, int64(n), 10), loopWindow))
}

// returning is a logout that the provider will come back from.
type returning struct {
	State     string `json:"s"`
	ReturnURL string `json:"r"`
}

const returnLife = 10 * time.Minute

func (e *Endpoints) keepReturn(w http.ResponseWriter, back returning) error {
	b, err := json.Marshal(back)
	if err != nil {
		return err
	}
	http.SetCookie(w, e.seal(logoutStateKind, logoutStateKind, b, returnLife))
	return nil
}

// takeReturn returns where a logout with this state goes on to, "" if there is none.
func (e *Endpoints) takeReturn(w http.ResponseWriter, r *http.Request, state string) string {
	b, ok := e.presented(r, logoutStateKind)
	e.clear(w, r, logoutStateKind)
	var back returning
	if !ok || json.Unmarshal(b, &back) != nil || !same(state, back.State) {
		return ""
	}
	return back.ReturnURL
}

const (
	continueLife = time.Minute
	// maxCookie is what is safe of the 4096 bytes that browsers allow a cookie,
	// its attributes included.
	maxCookie = 3800
	// maxURL bounds what opening a cookie makes of it.
	maxURL = 64 << 10
)

// continueCookie holds the provider's logout URL, nil if it is too long for one.
func (e *Endpoints) continueCookie(url string) *http.Cookie {
	var b bytes.Buffer
	z, _ := flate.NewWriter(&b, flate.BestCompression) // errs on unknown levels only
	io.WriteString(z, url)                             // a Buffer takes it all
	z.Close()
	c := e.seal(logoutKind, logoutKind, b.Bytes(), continueLife)
	if len(c.Name)+len(c.Value) > maxCookie {
		return nil
	}
	return c
}

// takeContinue returns the URL that continueCookie keeps, "" if there is none.
func (e *Endpoints) takeContinue(w http.ResponseWriter, r *http.Request) string {
	b, ok := e.presented(r, logoutKind)
	e.clear(w, r, logoutKind)
	if !ok {
		return ""
	}
	url, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxURL))
	if err != nil {
		return ""
	}
	return string(url)
}
