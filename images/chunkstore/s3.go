package chunkstore

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"daybreak/images"
)

// S3Config says where a bucket is and how to enter it.
type S3Config struct {
	// Location is s3://bucket or s3://bucket/prefix.
	Location string
	// Endpoint is the server's URL, https://host:port. Empty: Amazon's.
	Endpoint string
	// Region of the bucket. Empty: us-east-1, which is also what servers say that have none.
	Region string
	// CredentialsFile has the access key as Amazon's tools keep it: a section [default] with aws_access_key_id and
	// aws_secret_access_key.
	CredentialsFile string
	// CAFile has the certificates that the server's must be signed by, PEM. Empty: those of the system.
	CAFile string
	// Transport, when set, is used in place of one that follows from the rest.
	Transport http.RoundTripper
}

// S3 is a store in a bucket of an S3-compatible server:
//
//	chunks/ab/<digest>.zst     sealed chunks
//	manifests/<digest>         encoded manifests
//	intake/<digest>-<random>   manifests that are being taken in
//	sweeps/<random>            removals under way
//	owner                      whose store it is
//
// Objects appear whole or not at all, and none but the marks is ever replaced by anything else. The server must be strongly
// consistent, as all of today's are. All methods may be called at the same time.
type S3 struct {
	client minio.Core
	bucket string
	// prefix of all keys, empty or with a slash at its end.
	prefix string
	where  string
	codec  *images.Codec
	checks checker
	// requests has a token for each request under way: the bound of what one daybreakd asks of the server at a time.
	requests chan struct{}
	// plainPut: the server knows no conditional put.
	plainPut atomic.Bool
	index    index
}

const (
	// maxRequests is how many requests may be under way at a time.
	maxRequests = 32
	// maxRetries is how often a request is tried.
	maxRetries = 4
	// headerTimeout is how long a server may take to begin its answer.
	headerTimeout = 30 * time.Second
)

// OpenS3 makes a store of a bucket. It sends nothing yet: Own finds out whether it is there and lets us in.
func OpenS3(config S3Config, codec *images.Codec) (*S3, error) {
	bucket, prefix, err := splitLocation(config.Location)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	secure, host, err := splitEndpoint(config.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	keys, err := readCredentials(config.CredentialsFile)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	options := &minio.Options{
		Creds: keys, Secure: secure, Region: config.Region, Transport: config.Transport, MaxRetries: maxRetries,
		BucketLookup: minio.BucketLookupPath,
	}
	if options.Region == "" {
		options.Region = "us-east-1"
	}
	if config.Endpoint == "" {
		options.BucketLookup = minio.BucketLookupAuto
	}
	if options.Transport == nil {
		if options.Transport, err = transport(config.CAFile); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	client, err := minio.New(host, options)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return &S3{
		client: minio.Core{Client: client}, bucket: bucket, prefix: prefix, where: "s3://" + bucket + "/" + prefix + " at " + host, codec: codec,
		checks: newChecker(codec), requests: make(chan struct{}, maxRequests),
	}, nil
}

// splitLocation reads s3://bucket/prefix.
func splitLocation(location string) (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(location, "s3://")
	bucket, prefix, _ = strings.Cut(rest, "/")
	prefix = strings.Trim(prefix, "/")
	if !ok || bucket == "" || strings.ContainsAny(location, " ?#%\\\x00") || strings.Contains(prefix, "..") || strings.Contains(prefix, "//") || len(prefix) > 512 {
		return "", "", fmt.Errorf("%q is not of the form s3://bucket or s3://bucket/prefix", location)
	}
	if prefix != "" {
		prefix += "/"
	}
	return bucket, prefix, nil
}

func splitEndpoint(endpoint string) (secure bool, host string, err error) {
	if endpoint == "" {
		return true, "s3.amazonaws.com", nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Scheme != "https" && u.Scheme != "http" {
		return false, "", fmt.Errorf("endpoint %q is not of the form https://host:port", endpoint)
	}
	return u.Scheme == "https", u.Host, nil
}

func readCredentials(path string) (*credentials.Credentials, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("read credentials: everybody on this machine can read %s: chmod 600 it", path)
	}
	keys := credentials.NewFileAWSCredentials(path, "default")
	value, err := keys.GetWithContext(nil)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %s: %w", path, err)
	}
	if value.AccessKeyID == "" || value.SecretAccessKey == "" {
		return nil, fmt.Errorf("read credentials: %s lacks aws_access_key_id or aws_secret_access_key in its section [default]", path)
	}
	return keys, nil
}

func transport(caFile string) (http.RoundTripper, error) {
	made, err := minio.DefaultTransport(true)
	if err != nil {
		return nil, err
	}
	made.MaxIdleConnsPerHost, made.ResponseHeaderTimeout = maxRequests, headerTimeout
	if caFile == "" {
		return made, nil
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	made.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !made.TLSClientConfig.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read CA: %s holds no PEM certificate", caFile)
	}
	return made, nil
}

func (s *S3) chunkKey(digest images.Digest) string {
	name := digest.String()
	return s.prefix + "chunks/" + name[:2] + "/" + name + ".zst"
}

func (s *S3) manifestKey(digest images.Digest) string {
	return s.prefix + "manifests/" + digest.String()
}

// Own writes down whose the store is when it is nobody's yet. Errors say what to do when the bucket is not there or shut.
func (s *S3) Own(ctx context.Context, owner string) error {
	key := s.prefix + "owner"
	has, err := s.read(ctx, key, 256)
	if errors.Is(err, images.ErrNotFound) {
		if _, err := s.create(ctx, key, []byte(owner)); err != nil {
			return fmt.Errorf("take image store: %w", err)
		}
		has, err = s.read(ctx, key, 256) // another may have been quicker
	}
	if err != nil {
		return fmt.Errorf("find the image store's owner: %w", err)
	}
	return checkOwner(s.where, string(has), owner)
}

func checkOwner(where, has, owner string) error {
	if has == owner {
		return nil
	}
	return fmt.Errorf("%s was made by cluster %.64q, and this is %.64q: %w; give each a place of its own, or remove %q there if that cluster is gone for good",
		where, has, owner, ErrForeign, "owner")
}

// ask waits for a free slot and does a request in it.
func (s *S3) ask(ctx context.Context, request func() error) error {
	select {
	case s.requests <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.requests }()
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.explain(ctx, request())
}

// read returns an object of at most limit bytes, or images.ErrNotFound.
func (s *S3) read(ctx context.Context, key string, limit int64) (data []byte, err error) {
	err = s.ask(ctx, func() error {
		body, info, _, err := s.client.GetObject(ctx, s.bucket, key, minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		defer body.Close()
		if info.Size > limit {
			return fmt.Errorf("%s has %d bytes, more than %d: %w", key, info.Size, limit, images.ErrCorrupt)
		}
		data, err = io.ReadAll(io.LimitReader(body, limit+1))
		if err == nil && int64(len(data)) > limit {
			err = fmt.Errorf("%s has more than %d bytes: %w", key, limit, images.ErrCorrupt)
		}
		return err
	})
	return data, err
}

// put writes an object, whatever was there.
func (s *S3) put(ctx context.Context, key string, data []byte, options minio.PutObjectOptions) error {
	options.DisableMultipart, options.SendContentMd5 = true, true
	return s.ask(ctx, func() error {
		_, err := s.client.Client.PutObject(ctx, s.bucket, key, bytes.NewReader(data), int64(len(data)), options)
		return err
	})
}

// create writes an object unless there is one, and says whether it did. A server that knows no conditions is asked first,
// which leaves a moment in which both of two callers write: the same bytes, since keys are digests.
func (s *S3) create(ctx context.Context, key string, data []byte) (made bool, err error) {
	if !s.plainPut.Load() {
		options := minio.PutObjectOptions{}
		options.SetMatchETagExcept("*")
		err := s.put(ctx, key, data, options)
		switch code := codeOf(err); {
		case err == nil:
			return true, nil
		case code == "PreconditionFailed":
			return false, nil
		case code == "ConditionalRequestConflict": // another is writing it just now, or removing it
		case code == "NotImplemented":
			s.plainPut.Store(true)
		default:
			return false, err
		}
	}
	if _, err := s.stat(ctx, key); !errors.Is(err, images.ErrNotFound) {
		return false, err
	}
	return true, s.put(ctx, key, data, minio.PutObjectOptions{})
}

// stat returns size and time of an object, or images.ErrNotFound.
func (s *S3) stat(ctx context.Context, key string) (info minio.ObjectInfo, err error) {
	err = s.ask(ctx, func() error {
		info, err = s.client.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{})
		return err
	})
	return info, err
}

func codeOf(err error) string {
	var response minio.ErrorResponse
	if errors.As(err, &response) {
		return response.Code
	}
	return ""
}

// explain names what a server's answer means and what can be done about it.
func (s *S3) explain(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, images.ErrCorrupt) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	var response minio.ErrorResponse
	if !errors.As(err, &response) {
		advice := ""
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			advice = "; name the file of the CA that signed the server's certificate"
		}
		return fmt.Errorf("%s: %w: %w%s", s.where, ErrUnreachable, err, advice)
	}
	switch response.Code {
	case "NoSuchKey":
		return images.ErrNotFound
	case "PreconditionFailed", "ConditionalRequestConflict", "NotImplemented":
		return err
	case "NoSuchBucket":
		return fmt.Errorf("%s: there is no such bucket: make it, or correct the image store's address: %w: %w", s.where, ErrDenied, err)
	case "AccessDenied", "AllAccessDisabled", "AccountProblem":
		return fmt.Errorf("%s: access denied: the access key needs s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on what is in it: %w: %w", s.where, ErrDenied, err)
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken":
		return fmt.Errorf("%s: the server does not accept the access key or its secret: correct the credentials file: %w: %w", s.where, ErrDenied, err)
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException":
		return fmt.Errorf("%s: the bucket is in another region: set the image store's region: %w: %w", s.where, ErrDenied, err)
	case "RequestTimeTooSkewed":
		return fmt.Errorf("%s: this machine's clock and the server's differ: set them right: %w: %w", s.where, ErrDenied, err)
	case "QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded":
		return fmt.Errorf("%s: %w: %w", s.where, err, images.ErrFull)
	}
	switch response.StatusCode {
	case http.StatusNotFound:
		return images.ErrNotFound
	case http.StatusInsufficientStorage:
		return fmt.Errorf("%s: %w: %w", s.where, err, images.ErrFull)
	}
	return fmt.Errorf("%s: %w", s.where, err)
}
