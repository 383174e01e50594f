package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"image"
	"image/png"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/api"
	"daybreak/api/audit"
	"daybreak/api/pki"
	"daybreak/cmd/clientconfig"
	"daybreak/cmd/daybreak/objectfile"
	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/images/sign"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"daybreak": func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// The stories are told by txtar files; each has a control plane of its own in this process, with real TLS.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			return serve(t, env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "waitfor": waitFor, "put": put, "remove": remove, "lead": lead, "disk": disk, "branch": branch, "flip": flip, "cut": cut,
		},
	})
}

type (
	backendKey struct{}
	leadKey    struct{}
)

// serve starts a control plane and points the story's environment at it.
func serve(t *testing.T, env *testscript.Env) error {
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		return err
	}
	trail, err := audit.Open(filepath.Join(env.WorkDir, "audit.log"))
	if err != nil {
		return err
	}
	codec, err := images.NewCodec()
	if err != nil {
		return err
	}
	chunks, err := chunkstore.OpenDir(filepath.Join(env.WorkDir, ".images"), codec)
	if err != nil {
		return err
	}
	publisher, err := sign.NewKey()
	if err != nil {
		return err
	}
	backend := store.NewMemory()
	mirror := store.NewMirror(backend)
	hosts := &sessions{codec: codec}
	server, err := api.NewServer(api.Config{
		Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel), Registerer: prometheus.NewRegistry(),
		Backend: backend, Mirror: mirror, CA: ca, Audit: trail, Chunks: chunks, Publisher: publisher,
		Cluster: api.Cluster{Version: "story", ID: "cluster-1", Epoch: 1},
		Claims:  pool.NewClaimer(store.Open(backend, store.WriterPool), mirror), Sessions: hosts, Explain: explain,
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	agents, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	conn, err := connectAgent(ca, agents.Addr().String())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	hosts.ctx, hosts.agents = ctx, v1.NewAgentServiceClient(conn)
	ended, running := make(chan error, 3), 2
	go func() { ended <- mirror.Run(ctx) }()
	go func() { ended <- server.Run(ctx, []net.Listener{listener}, []net.Listener{agents}) }()
	env.Defer(func() {
		cancel()
		_ = conn.Close()
		for range running {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
	env.Values[backendKey{}] = backend
	env.Values[leadKey{}] = func() {
		go func() {
			ended <- pool.New(mirror, rand.Reader, zerolog.Nop(), prometheus.NewRegistry()).Run(ctx, store.Open(backend, store.WriterPool))
		}()
		running++
	}
	address := listener.Addr().String()
	env.Setenv("ADDRESS", address)
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("TZ", "UTC")
	env.Setenv("DAYBREAK_CONFIG", filepath.Join(env.WorkDir, "config.yaml"))
	config := &clientconfig.Config{}
	for _, who := range []struct {
		context string
		address string
		id      pki.Identity
		now     time.Time
	}{
		{"admin", address, pki.Identity{Name: "taro", Role: v1.Role_ROLE_ADMIN}, time.Now()},
		{"viewer", address, pki.Identity{Name: "hanako", Role: v1.Role_ROLE_VIEWER}, time.Now()},
		{"ended", address, pki.Identity{Name: "jiro", Role: v1.Role_ROLE_ADMIN}, time.Now().Add(-200 * 24 * time.Hour)},
		{"nowhere", "127.0.0.1:1", pki.Identity{Name: "taro", Role: v1.Role_ROLE_ADMIN}, time.Now()},
		{"no-socket", "unix:///nonexistent.sock", pki.Identity{Name: "taro", Role: v1.Role_ROLE_ADMIN}, time.Now()},
	} {
		c, err := enter(ca, who.id, who.now)
		if err != nil {
			return err
		}
		c.Name, c.Server = who.context, who.address
		config.Set(c)
	}
	stranger, err := pki.NewCA(time.Now())
	if err != nil {
		return err
	}
	other, err := enter(stranger, pki.Identity{Name: "taro", Role: v1.Role_ROLE_ADMIN}, time.Now())
	if err != nil {
		return err
	}
	other.Name, other.Server = "stranger", address
	config.Set(other)
	return config.Save(filepath.Join(env.WorkDir, "config.yaml"))
}

// enter makes a context with a certificate.
func enter(ca *pki.CA, id pki.Identity, now time.Time) (clientconfig.Context, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return clientconfig.Context{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return clientconfig.Context{}, err
	}
	der, _, err := ca.IssueClient(id, csr, now)
	if err != nil {
		return clientconfig.Context{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	return clientconfig.Context{
		CA:   string(ca.CertPEM()),
		Cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
	}, err
}

func (*sessions) Screenshot(_ context.Context, desktop string) ([]byte, error) {
	switch desktop {
	case "sales-1":
		var picture bytes.Buffer
		err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 8, 8)))
		return picture.Bytes(), err
	case "sales-2":
		return []byte("<html>"), nil
	}
	return nil, status.Errorf(codes.NotFound, "there is no desktop %q", desktop)
}

func explain(_ context.Context, name string) (*v1.ExplainResponse, error) {
	return &v1.ExplainResponse{Summary: name + " waits for a host.", Details: []string{"kvm1: drained", "kvm2: 512 MiB of memory are missing\x1b[2J"}}, nil
}

// exits runs a command that must end with the given status: exits 2 daybreak get.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		failed := (*exec.ExitError)(nil)
		if !errors.As(err, &failed) {
			ts.Fatalf("%v", err)
		}
		got = failed.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// waitFor runs a command until it ends with 0: what it needs is under way.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: waitfor COMMAND…")
	}
	for range 200 {
		if ts.Exec(args[0], args[1:]...) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Fatalf("%v never ended with 0", args)
}

// put stores the objects of files as they stand, with all that only the orchestrator may write.
func put(ts *testscript.TestScript, _ bool, args []string) {
	backend := ts.Value(backendKey{}).(*store.Memory)
	var documents []*objectfile.Document
	for _, file := range args {
		found, err := objectfile.Parse(file, []byte(ts.ReadFile(file)))
		ts.Check(err)
		documents = append(documents, found...)
	}
	for _, d := range documents {
		for { // until nobody else was quicker
			op := store.Create(d.Object)
			if current, err := backend.Get(context.Background(), op.Ref); err == nil {
				d.Object.GetMeta().Revision = current.GetMeta().GetRevision()
				d.Object.GetMeta().Uid, d.Object.GetMeta().Created = current.GetMeta().GetUid(), current.GetMeta().GetCreated()
				op = store.Update(d.Object)
			}
			_, err := backend.Commit(context.Background(), store.Guard{}, []store.Op{op})
			if errors.Is(err, store.ErrConflict) {
				continue
			}
			ts.Check(err)
			break
		}
	}
}

// lead starts the loop of pools, which stories do without if they can.
func lead(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Value(leadKey{}).(func())()
}

// remove takes an object away: remove pool sales.
func remove(ts *testscript.TestScript, _ bool, args []string) {
	backend := ts.Value(backendKey{}).(*store.Memory)
	current, err := backend.Get(context.Background(), store.Ref{Kind: store.KindByName(args[0]), Name: args[1]})
	ts.Check(err)
	_, err = backend.Commit(context.Background(), store.Guard{}, []store.Op{store.Delete(current)})
	ts.Check(err)
}

// disk writes a raw disk of so many MiB with a text in it: disk FILE MIB TEXT.
func disk(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	file, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(file.Truncate(int64(size) << 20))
	_, err = file.WriteAt([]byte(args[2]), int64(size)<<19)
	ts.Check(err)
	ts.Check(file.Close())
}
