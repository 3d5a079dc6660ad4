CREATE TABLE "posts" (
	"id" serial PRIMARY KEY NOT NULL,
	"account_id" uuid NOT NULL
)
--> statement-breakpoint
ALTER TABLE "posts" ADD CONSTRAINT "posts_account_id_fk" FOREIGN KEY ("account_id") REFERENCES "public"."accounts"("id")
