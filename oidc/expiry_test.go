package oidc_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"
)

// The bubble's clock is years behind the provider's, so these tests redeem no
// code. The client's connections are closed before time passes: a goroutine that
// reads from one, or accepts them, would hold the clock.
func TestCB03FlowRunsOut(t *testing.T) {
	p := newProvider(t)
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, p)
		g.Close() // called without its server
		for _, test := range []struct {
			wait time.Duration
			want string
		}{
			{9 * time.Minute, "login_denied"},
			{10*time.Minute + time.Second, "login_refused"},
		} {
			w := httptest.NewRecorder()
			if err := g.serving.Login(w, httptest.NewRequest("GET", g.URL+"/bff/login", nil)); err != nil {
				t.Fatal(err)
			}
			u, _ := url.Parse(w.Header().Get("Location"))
			g.client.Close()
			time.Sleep(test.wait)
			r := httptest.NewRequest("GET", g.URL+"/bff/callback?error=access_denied&state="+u.Query().Get("state"), nil)
			r.AddCookie(w.Result().Cookies()[0])
			w = httptest.NewRecorder()
			refuse(w, g.serving.Callback(w, r))
			if got := w.Header().Get("X-Code"); got != test.want {
				t.Errorf("after %v: code %q, want %q", test.wait, got, test.want)
			}
			if c := w.Result().Cookies(); len(c) != 1 || c[0].MaxAge >= 0 {
				t.Errorf("after %v: cookies %v, want the flow's cleared", test.wait, c)
			}
			g.client.Close()
		}
	})
}

// visit calls an endpoint as a browser does that keeps its cookies in jar.
func visit(t *testing.T, g *gateway, jar map[string]*http.Cookie, path string, serve func(http.ResponseWriter, *http.Request) error) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, g.URL+path, nil)
	for _, c := range jar {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	if err := serve(w, r); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, c := range w.Result().Cookies() {
		if jar[c.Name] = c; c.MaxAge < 0 {
			delete(jar, c.Name)
		}
	}
	return w
}

func TestSES14UserCountsAsUseUnlessToldNotTo(t *testing.T) {
	p := newProvider(t)
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, p)
		g.Close()
		now := time.Now().Unix()
		p.tell(func() { p.claims = func(c map[string]any) { c["iat"], c["exp"] = now, now+300 } })
		jar := map[string]*http.Cookie{}
		w := visit(t, g, jar, "/bff/login", g.serving.Login)
		q := p.authorize(w.Header().Get("Location"))
		visit(t, g, jar, "/bff/callback?"+q.Encode(), g.serving.Callback)
		g.client.Close()
		idle := func() float64 {
			var s struct {
				Session struct {
					IdleExpiresIn float64 `json:"idle_expires_in"`
				}
			}
			w := visit(t, g, jar, "/bff/session", g.serving.Session)
			if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
				t.Fatal(err)
			}
			return s.Session.IdleExpiresIn
		}
		time.Sleep(5 * time.Minute)
		visit(t, g, jar, "/bff/user?slide=false", g.serving.User)
		if got := idle(); got != 1500 {
			t.Errorf("after 5 minutes and a look: idle_expires_in = %v, want 1500", got)
		}
		visit(t, g, jar, "/bff/user", g.serving.User)
		if got := idle(); got != 1800 {
			t.Errorf("after use: idle_expires_in = %v, want 1800", got)
		}
	})
}
