// s3server is an S3 server for tests: the posix gateway of versitygw, on a UNIX socket, until its standard input ends. It is
// a module of its own, since what it needs is no business of the product's.
//
//	s3server SOCKET DIR < pipe
//
// DIR gets the folders "data", in which a folder is a bucket, and "attributes". The access key and its secret are
// "tester" and "tester-secret".
package main

import (
	"context"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: s3server SOCKET DIR")
	}
	data, attributes := filepath.Join(os.Args[2], "data"), filepath.Join(os.Args[2], "attributes")
	for _, dir := range []string{data, attributes} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			log.Fatal(err)
		}
	}
	// Side files, since not every file system has extended attributes.
	side, err := meta.NewSideCar(attributes)
	if err != nil {
		log.Fatal(err)
	}
	backend, err := posix.New(data, side, posix.PosixOpts{SideCarDir: attributes, Concurrency: 64})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	err = embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess: "tester", RootUserSecret: "tester-secret", Region: "us-east-1",
		Ports: []string{os.Args[1]}, MaxConnections: 1024, MaxRequests: 512, MultipartMaxParts: 10000, Quiet: true, KeepAlive: true,
	})
	if err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}
