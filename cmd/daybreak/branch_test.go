package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rs/zerolog"

	"daybreak/api"
	"daybreak/api/audit"
	"daybreak/api/pki"
	"daybreak/cmd/clientconfig"
	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/images/sign"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// branch starts a control plane of another office, which no line connects with the story's own, as the context "branch":
// branch [KEYFILE…]. It has its objects and images from the time before when it is started again with more keys to trust.
func branch(ts *testscript.TestScript, _ bool, args []string) {
	for i := range args {
		args[i] = ts.MkAbs(args[i])
	}
	trusted, err := sign.ReadPublishers(args...)
	ts.Check(err)
	dir := ts.MkAbs(".branch")
	ts.Check(os.MkdirAll(dir, 0o700))
	ca, err := pki.OpenCA(filepath.Join(dir, "ca"), time.Now())
	ts.Check(err)
	key, _, err := sign.MakeKey(filepath.Join(dir, "publisher.key"))
	ts.Check(err)
	codec, err := images.NewCodec()
	ts.Check(err)
	chunks, err := chunkstore.OpenDir(filepath.Join(dir, "images"), codec)
	ts.Check(err)
	trail, err := audit.Open(filepath.Join(dir, "audit.log"))
	ts.Check(err)
	backend := store.NewMemory()
	mirror := store.NewMirror(backend)
	server, err := api.NewServer(api.Config{
		Log: zerolog.Nop(), Registerer: prometheus.NewRegistry(), Backend: backend, Mirror: mirror, CA: ca, Audit: trail,
		Chunks: chunks, Publisher: key, Trusted: trusted, Cluster: api.Cluster{Version: "story", ID: "cluster-2", Epoch: 1},
	})
	ts.Check(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- mirror.Run(ctx) }()
	go func() { ended <- server.Run(ctx, []net.Listener{listener}, nil) }()
	ts.Defer(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				ts.Logf("the branch ended: %v", err)
			}
		}
	})
	path := ts.MkAbs("config.yaml")
	config, err := clientconfig.Load(path)
	ts.Check(err)
	entry, err := enter(ca, pki.Identity{Name: "yuki", Role: v1.Role_ROLE_ADMIN}, time.Now())
	ts.Check(err)
	entry.Name, entry.Server = "branch", listener.Addr().String()
	current := config.Current
	config.Set(entry)
	config.Current = current
	ts.Check(config.Save(path))
}

// flip changes one bit of a file: flip FILE OFFSET NEWFILE. A negative offset counts from the end.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	data := []byte(ts.ReadFile(args[0]))
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	if offset < 0 {
		offset += len(data)
	}
	data[offset] ^= 4
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), data, 0o600))
}

// cut copies the beginning of a file: cut FILE BYTES NEWFILE. A negative number leaves out so many at the end.
func cut(ts *testscript.TestScript, _ bool, args []string) {
	data := []byte(ts.ReadFile(args[0]))
	length, err := strconv.Atoi(args[1])
	ts.Check(err)
	if length < 0 {
		length += len(data)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), data[:length], 0o600))
}
