package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// files are contents by name. A name that ends in "@" is a symlink.
type files map[string]string

func (f files) write(t *testing.T, dir string) {
	t.Helper()
	for name, content := range f {
		path := filepath.Join(dir, strings.TrimSuffix(name, "@"))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write := func() error { return os.WriteFile(path, []byte(content), 0o644) }
		if strings.HasSuffix(name, "@") {
			write = func() error { return os.Symlink(content, path) }
		}
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
}

// age makes all files of a directory look as if a build had made them at a time.
func age(t *testing.T, dir string, at time.Time) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return os.Chtimes(path, at, at)
	})
	if err != nil {
		t.Fatal(err)
	}
}

var longAgo = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// serveDir serves a directory as a gateway would, and writes the code of an
// error to the body.
func serveDir(t *testing.T, dir, fallback string) func(path string, header ...string) (*http.Response, string) {
	t.Helper()
	s, err := newStaticFiles(dir, fallback)
	if err != nil {
		t.Fatal(err)
	}
	documents := http.Header{"Content-Security-Policy": {DefaultCSP + "; frame-ancestors 'none'"}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := canonicalPath(r)
		if err == nil {
			err = s.serve(w, r, c.raw, isNavigation(r.Method, r.Header), r.Header.Get("Cookie") != "", documents)
		}
		var coded interface{ Code() string }
		switch {
		case errors.As(err, &coded):
			http.Error(w, coded.Code(), http.StatusTeapot)
		case err != nil:
			http.Error(w, "internal_error", http.StatusInternalServerError)
		}
	}))
	t.Cleanup(srv.Close)
	client := &http.Client{
		Transport:     &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(client.CloseIdleConnections)
	return func(path string, header ...string) (*http.Response, string) {
		t.Helper()
		method, rest, ok := strings.Cut(path, " ")
		if !ok {
			method, rest = http.MethodGet, path
		}
		req, err := http.NewRequest(method, srv.URL+rest, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, strings.TrimSpace(string(body))
	}
}

var navigates = []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}

func TestStaticFilesAnswer(t *testing.T) {
	outside := t.TempDir()
	files{"secret.txt": "secret", "sub/index.html": "secret"}.write(t, outside)
	dir := filepath.Join(t.TempDir(), "dist")
	files{
		"index.html": "page", "app.js": "script", "assets/index-DiwrgTda.js": "hashed", "a b/caf\u00e9.txt": "umlaut",
		"docs/index.html": "docs", "empty/sub/x.txt": "x", ".env": "secret", ".well-known/assetlinks.json": "links", ".well-known/.env": "secret", ".git/config": "secret", "sub/.htpasswd": "secret",
		"..data/real.js": "mounted", "mounted.js@": "..data/real.js", // as Kubernetes mounts a ConfigMap
		"out.txt@": filepath.Join(outside, "secret.txt"), "up.txt@": "../secret.txt", "outdir@": outside, "loop@": "loop", "broken@": "nowhere",
		"back\\slash.txt": "odd",
	}.write(t, dir)
	files{"secret.txt": "secret"}.write(t, filepath.Dir(dir))
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	get := serveDir(t, dir, "index.html")
	tests := []struct {
		name, request string
		header        []string
		status        int
		body          string
	}{
		{"the index page of the root", "/", nil, 200, "page"},
		{"a file", "/app.js", nil, 200, "script"},
		{"a file below a directory", "/assets/index-DiwrgTda.js", nil, 200, "hashed"},
		{"an encoded name", "/a%20b/caf%C3%A9.txt", nil, 200, "umlaut"},
		{"a file with a query", "/app.js?v=2", nil, 200, "script"},
		{"HEAD", "HEAD /app.js", nil, 200, ""},
		{"the index page of a directory", "/docs/", nil, 200, "docs"},
		{"a directory without its slash", "/docs", nil, 307, ""},
		{"a symlink that stays inside", "/mounted.js", nil, 200, "mounted"},

		{"a navigation to a path of the app's router", "/orders/17", navigates, 200, "page"},
		{"a navigation to such a path with a dot in it", "/users/jane.doe", navigates, 200, "page"},
		{"a navigation to such a path with two slashes", "/orders//17", navigates, 200, "page"},
		{"a navigation by an old browser", "/orders/17", []string{"Accept", "text/html,*/*"}, 200, "page"},
		{"a navigation to a directory without an index page", "/empty/", navigates, 200, "page"},
		{"a navigation by HEAD", "HEAD /orders/17", navigates, 200, ""},
		{"a fetch of such a path", "/orders/17", []string{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Accept", "text/html"}, 418, "no_route"},
		{"a frame", "/orders/17", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 418, "no_route"},
		{"a missing script", "/assets/gone.js", []string{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}, 418, "no_route"},
		{"a missing file for a client that is no browser", "/gone", nil, 418, "no_route"},
		{"a directory listing", "/empty/", nil, 418, "no_route"},
		{"a directory listing without the slash", "/empty", nil, 418, "no_route"},
		{"a file with a slash behind it", "/app.js/", nil, 418, "no_route"},
		{"a file taken for a directory", "/app.js/x", nil, 418, "no_route"},
		{"a name that is too long", "/" + strings.Repeat("x", 300), nil, 418, "no_route"},
		{"two slashes", "/assets//index-DiwrgTda.js", nil, 418, "no_route"},
		{"a raw path that is not clean", "/assets/;/../app.js", nil, 418, "bad_path"},

		{"a well-known file", "/.well-known/assetlinks.json", nil, 200, "links"},
		{"a dotfile among the well-known", "/.well-known/.env", nil, 418, "no_route"},
		{"a dotfile", "/.env", nil, 418, "no_route"},
		{"a dotfile with its dot encoded", "/%2eenv", nil, 418, "no_route"},
		{"a navigation to a dotfile", "/.env", navigates, 418, "no_route"},
		{"a file in a dot directory", "/.git/config", nil, 418, "no_route"},
		{"a file in a directory that begins with two dots", "/..data/real.js", nil, 418, "no_route"},
		{"a dotfile in a directory", "/sub/.htpasswd", nil, 418, "no_route"},
		{"a symlink that leads out", "/out.txt", nil, 418, "no_route"},
		{"a symlink that leads up", "/up.txt", nil, 418, "no_route"},
		{"a file behind a symlink that leads out", "/outdir/secret.txt", nil, 418, "no_route"},
		{"an index page behind a symlink that leads out", "/outdir/sub/", nil, 418, "no_route"},
		{"a directory behind a symlink that leads out", "/outdir/sub", nil, 418, "no_route"},
		{"a symlink to itself", "/loop", nil, 418, "no_route"},
		{"a symlink to nothing", "/broken", nil, 418, "no_route"},
		{"a pipe", "/pipe", nil, 418, "no_route"},
		{"a navigation to a pipe", "/pipe", navigates, 200, "page"},

		{"POST", "POST /app.js", nil, 418, "method_not_allowed"},
		{"OPTIONS", "OPTIONS /app.js", nil, 418, "method_not_allowed"},
		{"DELETE", "DELETE /", nil, 418, "method_not_allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := get(tt.request, tt.header...)
			if resp.StatusCode != tt.status || body != tt.body {
				t.Errorf("%s: %d %q, want %d %q", tt.request, resp.StatusCode, body, tt.status, tt.body)
			}
			if strings.Contains(body, "secret") {
				t.Errorf("%s shows a secret", tt.request)
			}
		})
	}
}

// The caller's canonical path already refuses these; the files hold on their own.
func TestStaticFilesDoNotTrustThePath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dist")
	files{"index.html": "page", "app.js": "script", "back\\slash.txt": "odd"}.write(t, dir)
	files{"secret.txt": "secret"}.write(t, filepath.Dir(dir))
	s, err := newStaticFiles(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "//secret.txt", "/x/../../secret.txt", "/" + dir + "/app.js",
		"/%", "/%zz", "/app.js%00", "/back%5cslash.txt", "/./app.js", "..",
	} {
		w := httptest.NewRecorder()
		err := s.serve(w, httptest.NewRequest(http.MethodGet, "/", nil), path, true, false, nil)
		if err == nil || w.Body.Len() > 0 {
			t.Errorf("%q: %d %q, want an error", path, w.Code, w.Body)
		}
	}
}

func TestStaticRedirectIntoADirectory(t *testing.T) {
	dir := t.TempDir()
	files{"docs/v1/index.html": "docs", "a:b/index.html": "colon"}.write(t, dir)
	get := serveDir(t, dir, "")
	for request, want := range map[string]string{
		"/docs/v1":     "./v1/",
		"/docs/v1?a=b": "./v1/?a=b",
		"/a:b":         "./a:b/",
		"/a%3Ab":       "./a%3Ab/",
	} {
		resp, _ := get(request)
		if got := resp.Header.Get("Location"); resp.StatusCode != 307 || got != want || resp.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d, Location %q, %q, want 307, %q, no-cache", request, resp.StatusCode, got, resp.Header.Get("Cache-Control"), want)
		}
	}
}

func TestStaticHeaders(t *testing.T) {
	dir := t.TempDir()
	files{
		"index.html": "page", "about-BRBmoGS9.html": "page", "sw.js": "worker", "assets/index-BRBmoGS9.js": "x", "logo.SVG": "<svg/>", "LICENSE": "free", "x.odd": "<html>",
	}.write(t, dir)
	get := serveDir(t, dir, "index.html")
	const csp = "default-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; " +
		"img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
	const forever = "max-age=31536000, immutable"
	tests := []struct {
		name, path                   string
		header                       []string
		mediaType, cacheControl, csp string
	}{
		{"a page", "/", nil, "text/html; charset=utf-8", "no-cache", csp},
		{"the fallback", "/orders", navigates, "text/html; charset=utf-8", "no-cache", csp},
		{"a page with a hash in its name", "/about-BRBmoGS9.html", nil, "text/html; charset=utf-8", "no-cache", csp},
		{"a service worker", "/sw.js", []string{"Service-Worker", "script"}, "text/javascript; charset=utf-8", "no-cache", ""},
		{"a hashed script", "/assets/index-BRBmoGS9.js", nil, "text/javascript; charset=utf-8", "public, " + forever, ""},
		{"a hashed script on an authenticated route", "/assets/index-BRBmoGS9.js", []string{"Cookie", "s=x"}, "text/javascript; charset=utf-8", "private, " + forever, ""},
		{"a page on an authenticated route", "/", []string{"Cookie", "s=x"}, "text/html; charset=utf-8", "private, no-cache", csp},
		{"an image that may run scripts, in upper case", "/logo.SVG", nil, "image/svg+xml", "no-cache", csp},
		{"a file without extension", "/LICENSE", nil, "application/octet-stream", "no-cache", ""},
		{"a file of an unknown kind that looks like a page", "/x.odd", nil, "application/octet-stream", "no-cache", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, _ := get(tt.path, tt.header...)
			for name, want := range map[string]string{
				"Content-Type": tt.mediaType, "Cache-Control": tt.cacheControl, "Content-Security-Policy": tt.csp,
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "strict-origin-when-cross-origin", "Last-Modified": "", "Vary": "",
			} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: %s = %q, want %q", tt.path, name, got, want)
				}
			}
		})
	}
}

// A script of the wrong type does not run, wasm does not stream, fonts do not load.
func TestStaticMediaTypes(t *testing.T) {
	dir := t.TempDir()
	want := map[string]string{
		"a.html": "text/html; charset=utf-8", "a.js": "text/javascript; charset=utf-8", "a.mjs": "text/javascript; charset=utf-8",
		"a.css": "text/css; charset=utf-8", "a.wasm": "application/wasm", "a.svg": "image/svg+xml", "a.json": "application/json",
		"a.js.map": "application/json", "a.webmanifest": "application/manifest+json", "a.woff2": "font/woff2", "a.woff": "font/woff",
		"a.ico": "image/x-icon", "a.png": "image/png", "a.webp": "image/webp", "a.avif": "image/avif", "a.txt": "text/plain; charset=utf-8",
		"a.xml": "application/xml", "a.pdf": "application/pdf", "a.mp4": "video/mp4",
	}
	for name := range want {
		files{name: "<script>"}.write(t, dir)
	}
	get := serveDir(t, dir, "")
	for name, mediaType := range want {
		resp, _ := get("/" + name)
		if got := resp.Header.Get("Content-Type"); got != mediaType {
			t.Errorf("%s: Content-Type %q, want %q", name, got, mediaType)
		}
	}
}

func TestStaticHashedNames(t *testing.T) {
	hashed := []string{
		"index-DiwrgTda.css", "index-BRBmoGS9.js", "assets/react-CHdo91hT.svg", "index-B-x_9dfk.js", "my-view-C_3kd9-a.js", "index-legacy-DiwrgTda.js", // Vite
		"index-DiwrgTda.js.map", "inter-BRBmoGS9.woff2", "worker-a1b2c3d4.wasm", "data-Bx81kQz0.json",
		"main.073c9b0a.js", "main.073c9b0a.chunk.js", "static/css/2.8f3c1a2b.chunk.css", "main.8f3c1a2b9c0d1e2f3a4b.min.js", // webpack
		"img/8f3c1a2b9c0d1e2f3a4b.png", "main-5XKQZ3AB.js", "chunk-ABCDEFGH.js", "app.abcd1234.css", "app-abcdef12.js", // webpack, esbuild, Parcel
		"workbox-4723e66c.js", "index-x7k2m9qz.js", "index-QrWxyzab.js",
	}
	plain := []string{
		"index.html", "index-BRBmoGS9.html", "robots-BRBmoGS9.txt", "site-BRBmoGS9.webmanifest", "app.js", "sw.js", "main.chunk.js", "favicon.ico",
		"jquery-3.7.1.min.js", "bootstrap.bundle.min.js", "polyfill-modules.js", "react-dom.production.js", "index-deadbeef.js", "service-worker.js",
		"Inter-SemiBold.woff2", "Roboto-BoldItalic.woff2", "OpenSans-ExtraBold.ttf", "photo-Portrait.jpg", "photo-Summer2024.jpg", "slide-background2.png",
		"report-20261122.pdf", "hero-1920x1080.jpg", "logo-800x600px.png", "banner-1200x630.png", "android-chrome-512x512.png",
		"photo-IMG_2041.jpg", "vacation-Photo_2041.jpg", "form-A4_V2_01.pdf", "page-My_Views.js", "app-v2-beta1.js", "vendors-node_modules_react_index_js.js", "BRBmoGS9.js", "LICENSE-COMMERCIAL",
		"short-a1b2c3.js", "8f3c1a2b.png", "1234567890123456.png", "assets-BRBmoGS9/app.js",
	}
	for _, name := range hashed {
		if !isHashed(name) {
			t.Errorf("%s has a hash in its name", name)
		}
	}
	for _, name := range plain {
		if isHashed(name) {
			t.Errorf("%s has no hash in its name, and would stay in caches for a year", name)
		}
	}
}

func TestNewStaticFilesSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	files{"index.html": "page", "sub/x": "x", ".env": "secret", "out@": "/etc/hostname"}.write(t, dir)
	tests := []struct{ name, dir, fallback, want string }{
		{"a directory that is not there", filepath.Join(dir, "dist"), "", "build the app first"},
		{"a file for a directory", filepath.Join(dir, "index.html"), "", "not a directory"},
		{"a fallback that is not there", dir, "app.html", "build the app first"},
		{"a fallback that is a directory", dir, "sub", "not a regular file"},
		{"a fallback outside", dir, "../index.html", "not the name of a file"},
		{"a fallback behind a symlink that leads out", dir, "out", "static.fallback"},
		{"a hidden fallback", dir, ".env", "not the name of a file"},
		{"a fallback with a slash before it", dir, "/index.html", "not the name of a file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newStaticFiles(tt.dir, tt.fallback)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("newStaticFiles: %v, want an error with %q and the path", err, tt.want)
			}
		})
	}
	if _, err := newStaticFiles(dir, ""); err != nil {
		t.Errorf("newStaticFiles without a fallback: %v", err)
	}
	t.Chdir(dir)
	s, err := newStaticFiles("sub", "")
	if err != nil || !filepath.IsAbs(s.dir) {
		t.Errorf("newStaticFiles of a relative directory: %+v, %v, want an absolute one", s, err)
	}
}

// What cannot be looked at must not become a 404, which says that it is not there.
func TestStaticFilesTellFaultsFromMissingFiles(t *testing.T) {
	for err, want := range map[error]bool{
		syscall.EACCES: true, syscall.EMFILE: true, syscall.ENFILE: true, syscall.EIO: true,
		syscall.ENOENT: false, syscall.ENOTDIR: false, syscall.ENAMETOOLONG: false, syscall.ELOOP: false,
	} {
		if got := isFault(&os.PathError{Op: "open", Path: "x", Err: err}); got != want {
			t.Errorf("%v is a fault: %v, want %v", err, got, want)
		}
	}
	dir := filepath.Join(t.TempDir(), "dist")
	files{"index.html": "page", "a.js": "x"}.write(t, dir)
	get := serveDir(t, dir, "index.html")
	if err := os.Remove(filepath.Join(dir, "index.html")); err != nil {
		t.Fatal(err)
	}
	if resp, body := get("/", navigates...); body != "no_route" {
		t.Errorf("a fallback that is gone: %d %s, want no_route", resp.StatusCode, body)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if resp, body := get("/", navigates...); resp.StatusCode != 500 {
		t.Errorf("a directory that is gone: %d %s, want 500", resp.StatusCode, body)
	}
}
