"""Functions of SQL that read and write no table; any other may do anything.

A function that is not here makes a statement touch ALL_TABLES: it may be the app's own, and hide a
write.  `known` of the drivers takes the names of those that an app vouches for.
"""

from __future__ import annotations

from typing import Final

_AGGREGATES = """
    count sum avg min max total group_concat string_agg array_agg json_agg jsonb_agg json_object_agg
    jsonb_object_agg json_group_array json_group_object bool_and bool_or every bit_and bit_or
    stddev stddev_pop stddev_samp variance var_pop var_samp corr covar_pop covar_samp
    percentile_cont percentile_disc mode any_value grouping
"""
_WINDOWS = """
    row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value
    nth_value
"""
_CONDITIONS = "coalesce nullif ifnull iif if greatest least case cast try_cast exists any all some"
_NUMBERS = """
    abs ceil ceiling floor round trunc sign mod div power pow sqrt cbrt exp ln log log2 log10 pi
    degrees radians sin cos tan asin acos atan atan2 random width_bucket gcd lcm
"""
_TEXTS = """
    lower upper initcap length char_length character_length octet_length bit_length trim ltrim
    rtrim btrim lpad rpad left right substr substring replace translate reverse repeat position
    strpos instr concat concat_ws format printf split_part starts_with ascii chr char unicode
    hex unhex quote quote_literal quote_ident md5 sha256 encode decode to_hex overlay
    regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table
    regexp_substr regexp_like regexp like glob similarity word_similarity unaccent to_tsvector
    to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd
    ts_headline bm25 snippet highlight str_position string_to_array string_to_table
    array_to_string soundex levenshtein
"""
_TIMES = """
    now current_timestamp current_date current_time localtime localtimestamp statement_timestamp
    transaction_timestamp clock_timestamp timeofday date time datetime julianday unixepoch strftime
    timediff date_trunc date_part extract age make_date make_time make_timestamp make_timestamptz
    make_interval to_timestamp to_date to_char to_number timezone justify_days justify_hours
    justify_interval
"""
_VALUES = """
    json json_array json_object json_extract json_type json_valid json_array_length json_each
    json_tree json_set json_insert json_replace json_remove json_patch json_quote jsonb
    json_build_object jsonb_build_object json_build_array jsonb_build_array to_json to_jsonb
    row_to_json array_to_json json_array_elements jsonb_array_elements json_array_elements_text
    jsonb_array_elements_text json_object_keys jsonb_object_keys jsonb_set jsonb_insert
    jsonb_strip_nulls json_strip_nulls jsonb_each json_each_text jsonb_each_text
    jsonb_path_query jsonb_path_exists jsonb_pretty jsonb_typeof json_typeof json_extract_path
    json_extract_path_text jsonb_extract_path jsonb_extract_path_text array array_length
    array_append array_prepend array_cat array_remove array_position array_positions
    cardinality unnest generate_series generate_subscripts row tuple lower_inc
    upper_inc isempty numrange int4range int8range tsrange tstzrange daterange system bernoulli
    gen_random_uuid uuid_generate_v4 uuidv7 randomblob zeroblob typeof pg_typeof
"""
_SESSION = """
    set_config current_user session_user user current_schema current_schemas current_database
    version sqlite_version pg_backend_pid pg_sleep current_setting last_insert_rowid changes
    total_changes next_value nextval currval lastval pg_advisory_xact_lock pg_advisory_lock
    pg_try_advisory_lock pg_try_advisory_xact_lock pg_advisory_unlock txid_current
    pg_current_xact_id
"""

KNOWN_FUNCTIONS: Final = frozenset(
    " ".join(
        (_AGGREGATES, _WINDOWS, _CONDITIONS, _NUMBERS, _TEXTS, _TIMES, _VALUES, _SESSION)
    ).split()
)
