package client_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sessiongate/client"
)

type handler func(http.ResponseWriter, *http.Request) error

var files = []struct {
	name, contentType string
	serve             handler
}{
	{"client.js", "text/javascript; charset=utf-8", client.JS},
	{"client.d.ts", "text/plain; charset=utf-8", client.Types},
}

// ask sends one request; field is "Name: value", or "".
func ask(t *testing.T, serve handler, method, field string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "/bff/client.js", nil)
	if name, value, ok := strings.Cut(field, ": "); ok {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	w.Header().Set("Cache-Control", "no-store") // as on the gateway's other endpoints
	if err := serve(w, r); err != nil {
		t.Fatalf("%s %s: %v", method, field, err)
	}
	return w
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFilesAreServedAsTheyAre(t *testing.T) {
	for _, f := range files {
		t.Run(f.name, func(t *testing.T) {
			content := read(t, f.name)
			get, head := ask(t, f.serve, "GET", ""), ask(t, f.serve, "HEAD", "")
			if get.Code != 200 || !bytes.Equal(get.Body.Bytes(), content) {
				t.Errorf("GET: status = %d, %d bytes; want 200 and the file's %d", get.Code, get.Body.Len(), len(content))
			}
			if head.Code != 200 || head.Body.Len() != 0 {
				t.Errorf("HEAD: status = %d, %d bytes of body; want 200 and none", head.Code, head.Body.Len())
			}
			for name, want := range map[string]string{
				"Content-Type":           f.contentType,
				"Content-Length":         strconv.Itoa(len(content)),
				"Cache-Control":          "public, max-age=300",
				"X-Content-Type-Options": "nosniff",
				"Last-Modified":          "",
			} {
				if got := get.Header().Get(name); got != want {
					t.Errorf("GET: %s = %q, want %q", name, got, want)
				}
				if got := head.Header().Get(name); got != want {
					t.Errorf("HEAD: %s = %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestUnchangedFilesAreNotSentAgain(t *testing.T) {
	for _, f := range files {
		etag := ask(t, f.serve, "GET", "").Header().Get("Etag")
		if !regexp.MustCompile(`^"[A-Za-z0-9_-]{43}"$`).MatchString(etag) {
			t.Errorf("%s: Etag = %s, want a strong one, of a SHA-256", f.name, etag)
		}
		for _, row := range []struct {
			name, field string
			want        int
		}{
			{"the same", "If-None-Match: " + etag, 304},
			{"one of several", `If-None-Match: "old", ` + etag, 304},
			{"the same, made weak by a compressing proxy", "If-None-Match: W/" + etag, 304},
			{"any", "If-None-Match: *", 304},
			{"another", `If-None-Match: "old"`, 200},
			{"a part of it", "If-None-Match: " + etag[:20] + `"`, 200},
		} {
			w := ask(t, f.serve, "GET", row.field)
			if w.Code != row.want {
				t.Errorf("%s: %s: status = %d, want %d", f.name, row.name, w.Code, row.want)
			}
			if w.Code == 304 && (w.Body.Len() != 0 || w.Header().Get("Etag") != etag || w.Header().Get("Cache-Control") != "public, max-age=300") {
				t.Errorf("%s: %s: 304 with %d bytes, header %v", f.name, row.name, w.Body.Len(), w.Header())
			}
		}
	}
	if a, b := ask(t, client.JS, "GET", ""), ask(t, client.Types, "GET", ""); a.Header().Get("Etag") == b.Header().Get("Etag") {
		t.Error("both files have one Etag")
	}
}

func TestTheModuleIsSmall(t *testing.T) {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	z.Write(read(t, "client.js"))
	z.Close()
	if b.Len() >= 4000 {
		t.Errorf("client.js is %d bytes compressed, want less than 4000", b.Len())
	}
}

// What a strict Content-Security-Policy forbids, or what would bring other code in.
func TestTheModuleRunsUnderAStrictPolicy(t *testing.T) {
	source := read(t, "client.js")
	for _, word := range []string{
		`\beval\b`, `\bFunction\b`, `\bimport\s*\(`, `^\s*import\b`, `\bfrom\s*["']`, `innerHTML`, `outerHTML`, `document\.write`,
		`createElement`, `insertAdjacent`, `\.style\b`, `cssText`, `\bdata:[a-z]`, `\bblob:`, `createObjectURL`, `\bWorker\b`,
		`javascript:`, `https?://`, `set(Timeout|Interval)\(\s*["'` + "`" + `]`,
	} {
		if at := regexp.MustCompile(`(?m)` + word).FindIndex(source); at != nil {
			t.Errorf("client.js has %s: …%s…", word, source[max(0, at[0]-20):min(len(source), at[1]+20)])
		}
	}
}

func TestThePackageIsComplete(t *testing.T) {
	var p struct {
		Name, Version, License, Type, Main, Types string
		Exports                                   map[string]json.RawMessage
		SideEffects                               bool
		Files                                     []string
		Dependencies                              map[string]string
	}
	if err := json.Unmarshal(read(t, "package.json"), &p); err != nil {
		t.Fatal(err)
	}
	if p.Name != "sessiongate-client" || p.Type != "module" || p.License != "Apache-2.0" || len(p.Dependencies) != 0 {
		t.Errorf("package.json: %+v", p)
	}
	if !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(p.Version) {
		t.Errorf("version = %q", p.Version)
	}
	// A page that popups come back to needs the module for nothing but its effect.
	if !p.SideEffects {
		t.Error("bundlers may drop an import for its effect")
	}
	var entry struct{ Types, Default string }
	if err := json.Unmarshal(p.Exports["."], &entry); err != nil {
		t.Fatal(err)
	}
	if entry.Default != "./client.js" || entry.Types != "./client.d.ts" || p.Main != entry.Default || p.Types != entry.Types {
		t.Errorf(`exports["."] = %+v, main = %s, types = %s`, entry, p.Main, p.Types)
	}
	for _, name := range append([]string{"package.json", "client.js", "client.d.ts", "README.md", "LICENSE"}, p.Files...) {
		if len(read(t, name)) == 0 {
			t.Errorf("%s is empty", name)
		}
	}
	if !bytes.Equal(read(t, "LICENSE"), read(t, "../LICENSE")) {
		t.Error("LICENSE is not the project's")
	}
}
