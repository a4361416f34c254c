package proxy

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStaticConditionalRequests(t *testing.T) {
	dir := t.TempDir()
	files{"app.js": "0123456789", "copy.js": "0123456789"}.write(t, dir)
	get := serveDir(t, dir, "")
	resp, _ := get("/app.js")
	tag := resp.Header.Get("Etag")
	if !strings.HasPrefix(tag, `"`) || len(tag) < 18 {
		t.Fatalf("ETag %s, want a strong one", tag)
	}
	if resp, _ := get("/copy.js"); resp.Header.Get("Etag") != tag {
		t.Errorf("the same content has ETag %s and %s", tag, resp.Header.Get("Etag"))
	}
	tests := []struct {
		name, request string
		header        []string
		status        int
		body, length  string
	}{
		{"the same version", "/app.js", []string{"If-None-Match", tag}, 304, "", ""},
		{"the same version, made weak by a proxy", "/app.js", []string{"If-None-Match", "W/" + tag}, 304, "", ""},
		{"another version", "/app.js", []string{"If-None-Match", `"other"`}, 200, "0123456789", "10"},
		{"a date, which says nothing", "/app.js", []string{"If-Modified-Since", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}, 200, "0123456789", "10"},
		{"a range", "/app.js", []string{"Range", "bytes=2-4"}, 206, "234", "3"},
		{"a range of the same version", "/app.js", []string{"Range", "bytes=2-4", "If-Range", tag}, 206, "234", "3"},
		{"a range of another version", "/app.js", []string{"Range", "bytes=2-4", "If-Range", `"other"`}, 200, "0123456789", "10"},
		{"a range of a date", "/app.js", []string{"Range", "bytes=2-4", "If-Range", time.Now().UTC().Format(http.TimeFormat)}, 200, "0123456789", "10"},
		{"HEAD", "HEAD /app.js", nil, 200, "", "10"},
		{"HEAD of the same version", "HEAD /app.js", []string{"If-None-Match", tag}, 304, "", ""},
		{"a version that must be another one", "/app.js", []string{"If-Match", `"other"`}, 412, "", "0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := get(tt.request, tt.header...)
			if resp.StatusCode != tt.status || body != tt.body || resp.Header.Get("Content-Length") != tt.length {
				t.Errorf("%s: %d %q, length %q, want %d %q, %q", tt.request, resp.StatusCode, body, resp.Header.Get("Content-Length"), tt.status, tt.body, tt.length)
			}
			if resp.StatusCode < 400 && (resp.Header.Get("Etag") != tag || resp.Header.Get("Cache-Control") != "no-cache") {
				t.Errorf("%s: ETag %s, Cache-Control %q", tt.request, resp.Header.Get("Etag"), resp.Header.Get("Cache-Control"))
			}
		})
	}
	if resp, _ := get("/app.js", "Range", "bytes=99-"); resp.StatusCode != 416 {
		t.Errorf("a range behind the end: %d, want 416", resp.StatusCode)
	}
}

func TestStaticCompressedSiblings(t *testing.T) {
	dir := t.TempDir()
	files{
		"app.js": "identity!", "app.js.br": "brotli!!", "app.js.gz": "gzip!!", "one.css": "identity", "one.css.gz": "gzip",
		"none.js": "identity", "dir.js": "identity", "dir.js.gz/x": "x", "out.js": "identity", "out.js.gz@": "/etc/hostname",
	}.write(t, dir)
	get := serveDir(t, dir, "")
	tests := []struct{ name, path, accept, body, encoding, vary string }{
		{"a browser", "/app.js", "gzip, deflate, br, zstd", "brotli!!", "br", "Accept-Encoding"},
		{"a browser on plain http", "/app.js", "gzip, deflate", "gzip!!", "gzip", "Accept-Encoding"},
		{"no wish", "/app.js", "", "identity!", "", "Accept-Encoding"},
		{"a weight", "/app.js", "br;q=0.5, gzip;q=0.8", "gzip!!", "gzip", "Accept-Encoding"},
		{"a weight with spaces and a capital", "/app.js", "GZIP ; q=0.8 , BR ; Q=0.9 , x", "brotli!!", "br", "Accept-Encoding"},
		{"a weight with a capital Q", "/app.js", "br;Q=0.5, gzip;q=0.8", "gzip!!", "gzip", "Accept-Encoding"},
		{"a refusal", "/app.js", "br;q=0, gzip", "gzip!!", "gzip", "Accept-Encoding"},
		{"a refusal with decimals", "/app.js", "br;q=0.000, gzip;q=0.0", "identity!", "", "Accept-Encoding"},
		{"a weight that is no number", "/app.js", "br;q=x", "identity!", "", "Accept-Encoding"},
		{"anything", "/app.js", "*", "brotli!!", "br", "Accept-Encoding"},
		{"anything but one", "/app.js", "*, br;q=0", "gzip!!", "gzip", "Accept-Encoding"},
		{"nothing but itself", "/app.js", "identity;q=1, *;q=0", "identity!", "", "Accept-Encoding"},
		{"anything rather than one", "/one.css", "gzip;q=0.3, *;q=0.5", "identity", "", "Accept-Encoding"},
		{"itself rather than others", "/app.js", "identity, br;q=0.5", "identity!", "", "Accept-Encoding"},
		{"itself as well as others", "/app.js", "identity, br", "brotli!!", "br", "Accept-Encoding"},
		{"gzip's old name", "/app.js", "x-gzip", "gzip!!", "gzip", "Accept-Encoding"},
		{"a name that begins like one", "/app.js", "brx, gzipped", "identity!", "", "Accept-Encoding"},
		{"one sibling only", "/one.css", "br, gzip;q=0.1", "gzip", "gzip", "Accept-Encoding"},
		{"no sibling", "/none.js", "br, gzip", "identity", "", ""},
		{"a directory with a sibling's name", "/dir.js", "gzip", "identity", "", ""},
		{"a sibling that leads out", "/out.js", "gzip", "identity", "", ""},
		{"the sibling itself", "/app.js.gz", "", "gzip!!", "", ""},
	}
	tags := map[string]string{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var header []string
			if tt.accept != "" {
				header = []string{"Accept-Encoding", tt.accept}
			}
			resp, body := get(tt.path, header...)
			h := resp.Header
			if resp.StatusCode != 200 || body != tt.body || h.Get("Content-Encoding") != tt.encoding || h.Get("Vary") != tt.vary || resp.ContentLength != int64(len(tt.body)) {
				t.Errorf("%d %q, encoding %q, Vary %q, length %d, want 200 %q, %q, %q, %d", resp.StatusCode, body,
					h.Get("Content-Encoding"), h.Get("Vary"), resp.ContentLength, tt.body, tt.encoding, tt.vary, len(tt.body))
			}
			if want := "text/javascript; charset=utf-8"; tt.path == "/app.js" && h.Get("Content-Type") != want {
				t.Errorf("Content-Type %q, want %q", h.Get("Content-Type"), want)
			}
			if former := tags[h.Get("Etag")]; former != "" && former != body {
				t.Errorf("%q and %q have the same ETag", former, body)
			}
			tags[h.Get("Etag")] = body
			if again, _ := get(tt.path, append(header, "If-None-Match", h.Get("Etag"))...); again.StatusCode != 304 || again.Header.Get("Vary") != tt.vary {
				t.Errorf("again: %d, Vary %q, want 304, %q", again.StatusCode, again.Header.Get("Vary"), tt.vary)
			}
			if head, _ := get("HEAD "+tt.path, header...); head.ContentLength != int64(len(tt.body)) || head.Header.Get("Etag") != h.Get("Etag") {
				t.Errorf("HEAD: length %d, ETag %s", head.ContentLength, head.Header.Get("Etag"))
			}
		})
	}
	t.Run("ranges are of the file itself", func(t *testing.T) {
		resp, body := get("/app.js", "Accept-Encoding", "br", "Range", "bytes=0-3")
		if resp.StatusCode != 206 || body != "iden" || resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%d %q %v, want 206 of the file", resp.StatusCode, body, resp.Header)
		}
		br, _ := get("/app.js", "Accept-Encoding", "br")
		resp, body = get("/app.js", "Accept-Encoding", "br", "Range", "bytes=4-", "If-Range", br.Header.Get("Etag"))
		if resp.StatusCode != 200 || body != "identity!" {
			t.Errorf("going on with what began compressed: %d %q, want all of the file", resp.StatusCode, body)
		}
	})
	t.Run("an encoding has its own tag even if it changes nothing", func(t *testing.T) {
		files{"same.js": "same", "same.js.gz": "same"}.write(t, dir)
		plain, _ := get("/same.js")
		if gz, _ := get("/same.js", "Accept-Encoding", "gzip"); gz.Header.Get("Etag") == plain.Header.Get("Etag") {
			t.Errorf("both have ETag %s", plain.Header.Get("Etag"))
		}
	})
	t.Run("a condition that fails has no body and no length of one", func(t *testing.T) {
		resp, body := get("/app.js", "Accept-Encoding", "br", "If-Match", `"other"`)
		if resp.StatusCode != 412 || body != "" {
			t.Errorf("%d %q, want 412", resp.StatusCode, body)
		}
		if resp, body := get("/app.js", "Accept-Encoding", "br"); resp.StatusCode != 200 || body != "brotli!!" {
			t.Errorf("afterwards: %d %q", resp.StatusCode, body)
		}
	})
}

func TestStaticSiblingOfAFormerVersion(t *testing.T) {
	dir := t.TempDir()
	files{"app.js": "new", "app.js.br": "old"}.write(t, dir)
	get := serveDir(t, dir, "")
	now := time.Now()
	for _, tt := range []struct {
		name string
		lag  time.Duration
		body string
		vary string
	}{
		{"older", 2 * time.Second, "new", ""},
		{"unpacked in another order", 500 * time.Millisecond, "old", "Accept-Encoding"},
		{"made after its file", -time.Hour, "old", "Accept-Encoding"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := now.Add(-tt.lag)
			if err := os.Chtimes(filepath.Join(dir, "app.js.br"), at, at); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(filepath.Join(dir, "app.js"), now, now); err != nil {
				t.Fatal(err)
			}
			if resp, body := get("/app.js", "Accept-Encoding", "br"); body != tt.body || resp.Header.Get("Vary") != tt.vary {
				t.Errorf("%q, Vary %q, want %q, %q", body, resp.Header.Get("Vary"), tt.body, tt.vary)
			}
		})
	}
}

// Every version has the same size and the same date, as reproducible builds make
// them, so that nothing but the content tells them apart.
func TestStaticNewDeployIsSeenAtOnce(t *testing.T) {
	deploys := []struct {
		name   string
		deploy func(t *testing.T, dir, content string)
	}{
		{"files written in place, just now", func(t *testing.T, dir, content string) {
			files{"index.html": content}.write(t, dir)
		}},
		{"files renamed over the old ones", func(t *testing.T, dir, content string) {
			files{"index.html.new": content}.write(t, dir)
			age(t, dir, longAgo)
			if err := os.Rename(filepath.Join(dir, "index.html.new"), filepath.Join(dir, "index.html")); err != nil {
				t.Fatal(err)
			}
		}},
		{"files deleted and built again", func(t *testing.T, dir, content string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			files{"index.html": content}.write(t, dir)
		}},
		{"the directory exchanged", func(t *testing.T, dir, content string) {
			files{"index.html": content}.write(t, dir+".new")
			age(t, dir+".new", longAgo)
			if err := os.Rename(dir, dir+".old-"+content); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(dir+".new", dir); err != nil {
				t.Fatal(err)
			}
		}},
		{"the symlink to it turned", func(t *testing.T, dir, content string) {
			release := filepath.Join(filepath.Dir(dir), "release-"+content)
			files{"index.html": content}.write(t, release)
			age(t, release, longAgo)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(release, dir); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range deploys {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dist")
			files{"index.html": "v0"}.write(t, dir)
			age(t, dir, longAgo)
			get := serveDir(t, dir, "index.html")
			resp, _ := get("/", navigates...)
			tag := resp.Header.Get("Etag")
			for _, want := range []string{"v1", "v2", "v3"} {
				tt.deploy(t, dir, want)
				resp, body := get("/", append(navigates, "If-None-Match", tag)...)
				if resp.StatusCode != 200 || body != want {
					t.Fatalf("%d %q, want 200 %q", resp.StatusCode, body, want)
				}
				tag = resp.Header.Get("Etag")
				if resp, _ := get("/", append(navigates, "If-None-Match", tag)...); resp.StatusCode != 304 {
					t.Errorf("again: %d, want 304", resp.StatusCode)
				}
			}
		})
	}
}

// The hash of an old file is remembered, or every 304 would read all of it.
func TestStaticTagsAreRemembered(t *testing.T) {
	dir := t.TempDir()
	files{"app.js": "script", "new.js": "new"}.write(t, dir)
	if err := os.Chtimes(filepath.Join(dir, "app.js"), longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var c tagCache
	tag := func(name string) string {
		t.Helper()
		v, err := open(root, name)
		if err != nil {
			t.Fatal(err)
		}
		defer v.file.Close()
		tag, err := c.tag(v)
		if err != nil {
			t.Fatal(err)
		}
		return tag
	}
	script := tag("app.js")
	if again, other := tag("app.js"), tag("new.js"); again != script || other == script {
		t.Errorf("tags %s and %s of one file, %s of another", script, again, other)
	}
	if len(c.known) != 1 {
		t.Errorf("%d tags are remembered, want that of the old file", len(c.known))
	}
	files{"app.js": "longer script"}.write(t, dir)
	if err := os.Chtimes(filepath.Join(dir, "app.js"), longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
	if tag("app.js") == script {
		t.Error("a tag outlived the file's size")
	}
	for i := range maxTags {
		c.known[string(rune(i))] = knownTag{}
	}
	if err := os.Chtimes(filepath.Join(dir, "new.js"), longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
	if tag("new.js"); len(c.known) != 1 {
		t.Errorf("%d tags are remembered, want old ones to be forgotten at %d", len(c.known), maxTags)
	}
}

func BenchmarkStaticFiles(b *testing.B) {
	dir := b.TempDir()
	path := filepath.Join(dir, "app.js")
	if err := os.WriteFile(path, make([]byte, 64<<10), 0o644); err != nil {
		b.Fatal(err)
	}
	if err := os.Chtimes(path, longAgo, longAgo); err != nil {
		b.Fatal(err)
	}
	s, err := newStaticFiles(dir, "")
	if err != nil {
		b.Fatal(err)
	}
	r, w := &http.Request{Method: http.MethodGet, Header: http.Header{}}, discard{}
	b.ReportAllocs()
	for b.Loop() {
		clear(w)
		if err := s.serve(w, r, "/app.js", false, false, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// discard is an http.ResponseWriter that writes to nobody.
type discard http.Header

func (d discard) Header() http.Header         { return http.Header(d) }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}
