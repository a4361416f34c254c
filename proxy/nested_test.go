package proxy

import (
	"net/http"
	"net/url"
	"testing"
)

// nested is a public upstream with parts that are not, as the route of the parts
// alone says.
func nested(w *world, a *App, _ *Config) {
	to := must(url.Parse(w.up.URL))
	a.Routes = []Route{
		{Path: "/", Upstream: to, Auth: AuthNone},
		{Path: "/admin/", Upstream: to},
		{Path: "/admin/open/", Upstream: to, Auth: AuthNone},
		{Path: "/secret", Upstream: to},
		{Path: "/book/", Upstream: to},
		{Path: "/b%C3%BC/", Upstream: to},
		{Path: "/read/", Upstream: to, Methods: []string{"GET"}},
		{Path: "/elsewhere/", Upstream: must(url.Parse("http://127.0.0.1:1"))},
		{Path: "/page/", Upstream: to, Kind: KindPage},
		{Path: "/page/api/", Upstream: to},
		{Path: "/page/api/looser/", Upstream: to, Auth: AuthOptional},
	}
}

// A path that an upstream may read as one of a route that asks for more does not
// go around that route, whatever the upstream makes of it: merges slashes (nginx),
// cuts parameters (Tomcat), decodes again, forgets the case (Express, IIS) or what
// stands at a name's end (Windows).
func TestCVE202547952NoWayAroundARouteThatAsksForMore(t *testing.T) {
	w := newWorld(t, nested)
	for _, row := range []struct {
		name, line string
		status     int
	}{
		{"the guarded route itself", "GET /admin/x", 403},
		{"with a parameter after its name", "GET /admin;x/y", 400},
		{"with an encoded parameter", "GET /admin%3bx/y", 400},
		{"with a parameter that is encoded twice", "GET /admin%253bx/y", 400},
		{"behind an empty segment with a parameter", "GET /;x/admin/y", 400},
		{"in another case", "GET /Admin/y", 400},
		{"with a letter encoded twice", "GET /%2561dmin/y", 400},
		{"with a dot at the end of its name", "GET /admin./y", 400},
		{"with an encoded space at the end of its name", "GET /admin%20/y", 400},
		{"an exact route with a parameter", "GET /secret;x", 400},
		{"an exact route in another case", "GET /SECRET", 400},
		{"an exact route with a dot", "GET /secret.", 400},
		{"a route with UTF-8 in its name, encoded twice", "GET /b%25c3%25bc/x", 400},
		{"two slashes inside", "GET /x//admin/y", 200},
		{"two slashes at the beginning", "GET //admin/y", 400},
		{"another name that begins like it", "GET /administrator/y", 200},
		{"another name that ends like it", "GET /xadmin/y", 200},
		{"an open part of it", "GET /admin/open/y", 200},
		{"an open part of it, with two slashes", "GET /admin/open//y", 200},
		{"a loose reading of the open part, which a stricter one puts in the guarded part", "GET /admin;/Open/y", 400},
		{"a loose reading of the open part in another case", "GET /Admin/open/y", 400},
		{"with a letter whose capital is ASCII", "GET /%C5%BFecret", 400},
		{"with a letter whose small one is ASCII", "GET /boo%E2%84%AA/x", 400},
		{"a guarded part on another upstream", "GET /ELSEWHERE/y", 200},
		{"a method that a list does not have", "POST /Read/x", 400},
		{"an upstream path that nothing guards", "GET /other//x;y/Z.", 200},
		{"PX-05: a part that needs X-CSRF, around the route of pages", "GET /page//api/x", 400},
		{"a looser part of that, which is in it for whoever reads less loosely", "GET /page//api/looser/x", 400},
	} {
		w.up.forget()
		got := w.send(row.line, "Content-Length: 0")
		if got.StatusCode != row.status {
			t.Errorf("%s: %s: status %d %s, want %d", row.name, row.line, got.StatusCode, got.body, row.status)
		}
		if row.status == 400 && got.problem(t).Code != "bad_path" {
			t.Errorf("%s: %s", row.name, got.body)
		}
		if n := len(w.up.requests()); (n == 1) != (row.status == http.StatusOK) {
			t.Errorf("%s: the upstream saw %d requests", row.name, n)
		}
	}
}

func TestLoosely(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "/a": "/a", "/a/": "/a/", "/A//b": "/a/b", "//a": "/a", "/a;x=/y;z/b": "/a/y/b", "/;/a/": "/a/", "/a/;": "/a/",
		"/a%3Bb/c": "/a/c", "/%2561": "/a", "/100%25": "/100%", "/a%": "/a%", "/a%4": "/a%4", "/a./b. ./c": "/a/b/c", "/B%C3%9C": "/b\u00fc",
		"/%E2%84%AA%C5%BF%C4%B1%C4%B0": "/ksii",
	} {
		if got := loosely(path); got != want {
			t.Errorf("loosely(%q) = %q, want %q", path, got, want)
		}
	}
}
