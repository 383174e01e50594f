package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"daybreak/images"
	"daybreak/images/chunkstore"
)

const (
	s3Scheme = "s3://"
	// storeTimeout is how long a start waits for the bucket's server.
	storeTimeout = 20 * time.Second
)

// checkImageStore checks the options of the image store.
func (o options) checkImageStore() error {
	if !strings.HasPrefix(o.ImageStore, s3Scheme) {
		if o.ImageStoreEndpoint != "" || o.ImageStoreRegion != "" || o.ImageStoreCredentials != "" || o.ImageStoreCA != "" {
			return errors.New("--image-store-endpoint, -region, -credentials and -ca are for an --image-store of the form s3://bucket/prefix")
		}
		return nil
	}
	if o.ImageStoreCredentials == "" {
		return errors.New("--image-store-credentials is needed for an --image-store in a bucket: a file with aws_access_key_id and aws_secret_access_key below [default]")
	}
	if o.ImageStoreCA != "" && !strings.HasPrefix(o.ImageStoreEndpoint, "https://") {
		return errors.New("--image-store-ca is for an --image-store-endpoint that begins with https://")
	}
	return nil
}

// openImages opens the image store and makes sure that it is this cluster's. A bucket that cannot be reached just now must not
// keep desktops from being served: only what needs it fails until it is back.
func openImages(ctx context.Context, o options, cluster string, log zerolog.Logger) (chunkstore.Store, error) {
	codec, err := images.NewCodec()
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(o.ImageStore, s3Scheme) {
		dir, err := chunkstore.OpenDir(o.ImageStore, codec)
		if err != nil {
			return nil, err
		}
		if err := dir.Own(ctx, cluster); err != nil {
			return nil, fmt.Errorf("--image-store: %w", err)
		}
		return dir, nil
	}
	bucket, err := chunkstore.OpenS3(chunkstore.S3Config{
		Location: o.ImageStore, Endpoint: o.ImageStoreEndpoint, Region: o.ImageStoreRegion,
		CredentialsFile: o.ImageStoreCredentials, CAFile: o.ImageStoreCA,
	}, codec)
	if err != nil {
		return nil, fmt.Errorf("--image-store: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err = bucket.Own(ctx, cluster)
	if errors.Is(err, chunkstore.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) {
		log.Warn().Err(err).Msg("the image store does not answer; images can be neither taken in nor fetched until it does")
		return bucket, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--image-store: %w", err)
	}
	return bucket, nil
}
