# nginx reads this file when it has written its Makefile: the scripts for
# Redis, src/redis/*.lua, are strings of a header, made again when they change.

ngx_llm_embed=$ngx_addon_dir/src/redis/embed
ngx_llm_header=$NGX_OBJS/llm_redis_lua.h
ngx_llm_lua=

for ngx_llm_name in bucket save reserve settle raise lease
do
    ngx_llm_lua="$ngx_llm_lua $ngx_addon_dir/src/redis/$ngx_llm_name.lua"
done

printf '\n%s: %s%s\n\t%s%s > $@.new\n\tmv $@.new $@\n\n' \
       "$ngx_llm_header" "$ngx_llm_embed" "$ngx_llm_lua" \
       "$ngx_llm_embed" "$ngx_llm_lua" >> $NGX_MAKEFILE
