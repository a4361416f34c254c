package gatewaytest

import (
	"crypto/rand"
	"crypto/rsa"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"sessiongate/internal/devprovider"
)

// World is a gateway between a provider that can misbehave and an API, or several
// behind a balancer. The gateways are installed and not started.
type World struct {
	Provider *devprovider.Provider
	Gateway  *Gateway   // the first
	Gateways []*Gateway // all of them
	Balancer *Balancer  // nil with one gateway
	Relay    *Relay     // nil unless asked for
	Origin   string
	Issuer   string

	api     *api
	address string       // the provider's
	server  *http.Server // the provider's
}

// Options are what tests choose.
type Options struct {
	Users    []devprovider.User
	TokenTTL time.Duration  // of access tokens; 0: the provider's default
	OIDC     map[string]any // more keys of the app's oidc section
	Config   map[string]any // more keys of the configuration; with tls the app is https
	Routes   []any          // more routes of the app

	Store    map[string]any // session.store; nil: a bbolt file of the gateway's own
	Gateways int            // so many with one configuration, behind a balancer; 0: one without
	Relay    bool           // the provider is reached through a process of its own
	// Client, if set, changes how the provider knows the app.
	Client func(*devprovider.Client)
}

// providerKey is shared by all providers: making one takes longer than a test.
var providerKey = sync.OnceValues(func() (*rsa.PrivateKey, error) {
	return rsa.GenerateKey(rand.Reader, 2048)
})

const (
	clientID     = "spa"
	clientSecret = "a client secret, of a test"
)

// NewWorld starts a provider and an API and installs a gateway.
func NewWorld(t testing.TB, binary string, o Options) *World {
	t.Helper()
	listen := FreeAddress(t)
	_, port, _ := net.SplitHostPort(listen)
	w := &World{Origin: "http://localhost:" + port}
	if o.Config["tls"] != nil {
		w.Origin = "https://localhost:" + port
	}
	w.newProvider(t, o)
	w.api = newAPI(w.Provider)
	api := httptest.NewServer(w.api)
	t.Cleanup(api.Close)

	settings := map[string]any{
		"issuer":        w.Issuer,
		"client_id":     clientID,
		"client_secret": clientSecret,
	}
	for key, value := range o.OIDC {
		settings[key] = value
	}
	config := map[string]any{
		"apps": []any{map[string]any{
			"origin": w.Origin,
			"oidc":   settings,
			"routes": append([]any{map[string]any{"path": "/api/", "upstream": api.URL}}, o.Routes...),
		}},
	}
	maps.Copy(config, o.Config)
	if o.Store != nil {
		given, _ := config["session"].(map[string]any)
		config["session"] = complete(map[string]any{"store": o.Store}, given)
	}
	if o.Gateways < 2 {
		config["listen"] = listen
		w.Gateways = []*Gateway{Install(t, binary, config)}
	} else {
		for range o.Gateways {
			config["listen"] = FreeAddress(t)
			w.Gateways = append(w.Gateways, Install(t, binary, config))
		}
		w.Balancer = newBalancer(t, listen, w.Gateways)
	}
	w.Gateway = w.Gateways[0]
	return w
}

// Start starts all gateways and waits until they are ready, and until the balancer
// knows.
func (w *World) Start() {
	for _, g := range w.Gateways {
		g.Launch()
	}
	for _, g := range w.Gateways {
		g.AwaitReady()
	}
	if w.Balancer != nil {
		w.Balancer.AwaitReady(len(w.Gateways))
	}
}

func (w *World) newProvider(t testing.TB, o Options) {
	t.Helper()
	key, err := providerKey()
	if err != nil {
		t.Fatal(err)
	}
	w.address = FreeAddress(t)
	w.Issuer = "http://" + w.address
	if o.Relay {
		w.Relay = newRelay(t, w.address)
		w.Issuer = "http://" + w.Relay.Address()
	}
	client := devprovider.Client{
		ID:                     clientID,
		Secret:                 clientSecret,
		RedirectURIs:           []string{w.Origin + "/bff/callback"},
		PostLogoutRedirectURIs: []string{w.Origin + "/bff/logout/callback"},
	}
	if o.Client != nil {
		o.Client(&client)
	}
	w.Provider, err = devprovider.New(devprovider.Config{
		Issuer:         w.Issuer,
		Clients:        []devprovider.Client{client},
		Users:          o.Users,
		AccessTokenTTL: o.TokenTTL,
		Key:            key,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Up(t)
	t.Cleanup(func() { w.server.Close() })
}

// Up lets the provider listen again, after Down.
func (w *World) Up(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", w.address)
	// A process that another test is just starting holds copies of our sockets until it has become another program.
	for end := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		listener, err = net.Listen("tcp", w.address)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.server = &http.Server{Handler: w.Provider}
	go w.server.Serve(listener)
}

// Down takes the provider off the network: connections are refused.
func (w *World) Down() { w.server.Close() }
