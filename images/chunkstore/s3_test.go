package chunkstore_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/images/chunkstore/storetest"
)

// server is a real S3 server, versitygw on a folder.
type server struct {
	dir       string
	transport http.RoundTripper
}

// programs is where the server's program lies; TestMain makes and removes it.
var programs string

// built builds the server when it is first needed.
var built = sync.OnceValues(func() (string, error) {
	dir := programs
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "s3server"), ".")
	build.Dir = filepath.Join("testdata", "s3server")
	build.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return dir, errors.New("build the S3 server: " + err.Error() + "\n" + string(out))
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "s3server"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(programs)
	os.Exit(code)
}

// serve starts the server; it ends with the test, and with the test's process.
func serve(t *testing.T) *server {
	t.Helper()
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	s := &server{dir: t.TempDir()}
	ctx, stop := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, filepath.Join(program, "s3server"), socket, s.dir)
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	pipe, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = pipe.Close()
		stop()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("the server said: %s", said.Bytes())
		}
	})
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}, MaxIdleConnsPerHost: 32, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	s.transport = transport
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
	}
}

// bucket makes one and returns where its objects lie as files.
func (s *server) bucket(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(s.dir, "data", name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

const secret = "[default]\naws_access_key_id = tester\naws_secret_access_key = tester-secret\n"

func keyFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *server) config(t *testing.T, location string) chunkstore.S3Config {
	return chunkstore.S3Config{
		Location: location, Endpoint: "http://127.0.0.1", CredentialsFile: keyFile(t, secret, 0o600), Transport: s.transport,
	}
}

func openS3(t *testing.T, config chunkstore.S3Config) *chunkstore.S3 {
	t.Helper()
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	store, err := chunkstore.OpenS3(config, codec)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestS3(t *testing.T) {
	s := serve(t)
	names := "abcdefghijklmnopqrstuvwxyz"
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		bucket := "bucket-" + names[:1]
		names = names[1:]
		dir := s.bucket(t, bucket)
		config := s.config(t, "s3://"+bucket+"/some/prefix")
		return storetest.Opened{Store: openS3(t, config), Another: openS3(t, config),
			MakeOld: func(t *testing.T, by time.Duration) { makeOld(t, dir, by) }}
	})
}

// trip lets a test answer in the server's place.
type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(r *http.Request, status int, code string) *http.Response {
	body := "<Error><Code>" + code + "</Code><Message>planted</Message></Error>"
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/xml"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

// A server that knows no conditional put is asked first instead.
func TestS3WithoutConditions(t *testing.T) {
	s := serve(t)
	real := s.transport
	s.transport = trip(func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("If-None-Match") != "" {
			return answer(r, http.StatusNotImplemented, "NotImplemented"), nil
		}
		return real.RoundTrip(r)
	})
	names := "abcdefghijklmnopqrstuvwxyz"
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		bucket := "plain-" + names[:1]
		names = names[1:]
		dir := s.bucket(t, bucket)
		config := s.config(t, "s3://"+bucket)
		return storetest.Opened{Store: openS3(t, config), Another: openS3(t, config), Rough: true,
			MakeOld: func(t *testing.T, by time.Duration) { makeOld(t, dir, by) }}
	})
}

// Errors say what is wrong and what to do.
func TestS3Errors(t *testing.T) {
	s := serve(t)
	s.bucket(t, "there")
	wrong := s.config(t, "s3://there")
	wrong.CredentialsFile = keyFile(t, strings.Replace(secret, "tester-secret", "other", 1), 0o600)
	planted := func(status int, code string) chunkstore.S3Config {
		config := s.config(t, "s3://there")
		config.Transport = trip(func(r *http.Request) (*http.Response, error) { return answer(r, status, code), nil })
		return config
	}
	gone := s.config(t, "s3://there")
	gone.Transport = trip(func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") })
	for name, row := range map[string]struct {
		config chunkstore.S3Config
		is     error
		says   string
	}{
		"no bucket":   {s.config(t, "s3://elsewhere"), chunkstore.ErrDenied, "no such bucket: make it"},
		"bad secret":  {wrong, chunkstore.ErrDenied, "correct the credentials file"},
		"denied":      {planted(http.StatusForbidden, "AccessDenied"), nil, "s3:PutObject"},
		"region":      {planted(http.StatusBadRequest, "AuthorizationHeaderMalformed"), nil, "set the image store's region"},
		"clock":       {planted(http.StatusForbidden, "RequestTimeTooSkewed"), nil, "clock"},
		"full":        {planted(http.StatusInsufficientStorage, "XMinioStorageFull"), images.ErrFull, ""},
		"unreachable": {gone, chunkstore.ErrUnreachable, "no route to host"},
	} {
		err := openS3(t, row.config).Own(t.Context(), "me")
		if err == nil || row.is != nil && !errors.Is(err, row.is) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestS3Refuses(t *testing.T) {
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	good := chunkstore.S3Config{Location: "s3://b", Endpoint: "https://s3.example:9000", CredentialsFile: keyFile(t, secret, 0o600)}
	for name, row := range map[string]struct {
		spoil func(*chunkstore.S3Config)
		says  string
	}{
		"no bucket":        {func(c *chunkstore.S3Config) { c.Location = "s3:///x" }, "s3://bucket"},
		"a way up":         {func(c *chunkstore.S3Config) { c.Location = "s3://b/../c" }, "s3://bucket"},
		"another scheme":   {func(c *chunkstore.S3Config) { c.Location = "http://b/c" }, "s3://bucket"},
		"endpoint":         {func(c *chunkstore.S3Config) { c.Endpoint = "s3.example" }, "https://host:port"},
		"endpoint's path":  {func(c *chunkstore.S3Config) { c.Endpoint = "https://s3.example/x" }, "https://host:port"},
		"no credentials":   {func(c *chunkstore.S3Config) { c.CredentialsFile = "/nonexistent" }, "no such file"},
		"open credentials": {func(c *chunkstore.S3Config) { c.CredentialsFile = keyFile(t, secret, 0o644) }, "chmod 600"},
		"empty file":       {func(c *chunkstore.S3Config) { c.CredentialsFile = keyFile(t, "[default]\n", 0o600) }, "aws_access_key_id"},
		"no CA":            {func(c *chunkstore.S3Config) { c.CAFile = keyFile(t, "x", 0o600) }, "no PEM"},
	} {
		config := good
		row.spoil(&config)
		if _, err := chunkstore.OpenS3(config, codec); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := chunkstore.OpenS3(good, codec); err != nil {
		t.Error(err)
	}
}

// What somebody put under a digest's name is not served when it cannot be a chunk or is another manifest.
func TestS3Planted(t *testing.T) {
	s := serve(t)
	dir := s.bucket(t, "planted")
	store := openS3(t, s.config(t, "s3://planted"))
	digest := images.Sum([]byte("planted"))
	other, err := images.NewManifest(512, []images.Digest{digest})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"chunks/" + digest.String()[:2] + "/" + digest.String() + ".zst": make([]byte, images.MaxSealedBytes+1),
		"manifests/" + digest.String():                                   other.Encoded(),
		"chunks/zz/x":                                                    nil,
		"manifests/x":                                                    nil,
		"intake/x":                                                       []byte("no manifest"),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Get(t.Context(), digest); !errors.Is(err, images.ErrCorrupt) {
		t.Errorf("Get of an object too long: %v", err)
	}
	if _, err := store.GetManifest(t.Context(), digest); !errors.Is(err, images.ErrCorrupt) {
		t.Errorf("GetManifest of another's bytes: %v", err)
	}
	items := 0
	for _, err := range store.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		items++
	}
	if items != 2 {
		t.Errorf("List has %d items, want the two with a digest's name", items)
	}
}

// A server is trusted by the CA that is named, and by no other.
func TestS3TLS(t *testing.T) {
	s := serve(t)
	s.bucket(t, "secret")
	front := httptest.NewUnstartedServer(&httputil.ReverseProxy{Transport: s.transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "gateway", r.In.Host
	}})
	front.Config.ErrorLog = log.New(io.Discard, "", 0) // it says what the test below does to it
	front.StartTLS()
	defer front.Close()
	config := s.config(t, "s3://secret")
	config.Transport, config.Endpoint = nil, front.URL
	if err := openS3(t, config).Own(t.Context(), "me"); !errors.Is(err, chunkstore.ErrUnreachable) || !strings.Contains(err.Error(), "name the file of the CA") {
		t.Errorf("a server of an unknown CA: %v", err)
	}
	config.CAFile = keyFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})), 0o644)
	if err := openS3(t, config).Own(t.Context(), "me"); err != nil {
		t.Errorf("a server of the CA that is named: %v", err)
	}
}
