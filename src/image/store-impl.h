/*
 * What the files of the store share.
 *
 *	store/oci-layout, index.json	the layout's own
 *	store/blobs/sha256/HEX		the blobs, 0444
 *	store/verified/HEX		note of the last check (store-blob.c)
 *	store/lock			OFD lock: held while index.json or the set of blobs changes
 *	store/blobs/sha256/.tmp-TAG	what builders have in hand (store-temp.c)
 */
#pragma once

struct store {
	int dir, blobs, notes; /* owned */
};
